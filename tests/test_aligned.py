"""Merges of adapters on their factors, by slow float64 code; a merge saved as an adapter."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import save_adapter
from checkpoints import checkpoint, tensors
from conftest import Cli
from families import save_family
from reference import trim
from safetensors.torch import save_file
from torch import Tensor

from aim_exp.checkpoint.adapters import AdaptedCheckpoint
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge import CoreTies, IsoC, KnotsTies, TsvM
from aim_exp.merge.groundwork import Material
from aim_exp.merge.matrices import DirectedMethod
from aim_exp.merge.stream import stream_merge
from aim_exp.tensors import blocks

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
RANKS = {"a": {Q: 1, DOWN: 2}, "b": {Q: 3}, "c": {Q: 2, DOWN: 4}}
WEIGHTS = {"a": 0.7, "b": 1.0, "c": 1.3}
SETTINGS: dict[str, Any] = {
    "weight": WEIGHTS, "scale": 0.8, "density": 0.4, "normalize": True, "matrices": "linear",
    "others": "mean",
}  # fmt: skip
KNOTS, CORE = KnotsTies(**SETTINGS), CoreTies(**SETTINGS, isotropic=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_population: Path) -> Path:
    """`base` and three adapters of different ranks."""
    folder = tmp_path_factory.mktemp("adapters")
    save_family("llama", folder, tiny_population / "base")
    base = tensors(folder / "base")
    for seed, (name, modules) in enumerate(RANKS.items()):
        shutil.rmtree(folder / name, ignore_errors=True)
        pattern = {module.replace(".", r"\."): rank for module, rank in modules.items()}
        save_adapter(folder / name, base, modules, seed=seed, rank_pattern=pattern)
    return folder


def expert(folder: Path, name: str) -> Checkpoint:
    base = checkpoint(folder, "base")
    return AdaptedCheckpoint(base, folder / name, base.folder, name)


def merged(
    folder: Path, method: DirectedMethod, names: str = "abc", threads: int = 1
) -> dict[str, Tensor]:
    base = checkpoint(folder, "base")
    experts = [expert(folder, name) for name in names]
    (folder / "work").mkdir(exist_ok=True)
    method.work_out(Material(base, experts, threads=threads), folder / "work")
    along = method.upon(folder / "work")
    with CheckpointWriter(folder / "out", base, None) as writer:
        stream_merge(base, experts, along, writer, seed=0, threads=threads)
    return {name: tensor.clone() for name, tensor in tensors(folder / "out").items()}


def ties(parts: list[Tensor], weights: list[float]) -> Tensor:
    """Element by element."""
    kept = [trim(part, SETTINGS["density"]) for part in parts]
    out = torch.zeros(parts[0].shape, dtype=torch.float64)
    for index in range(out.numel()):
        values = [(w, k.flatten()[index].item()) for w, k in zip(weights, kept, strict=True)]
        sign = 1 if sum(w * v for w, v in values) >= 0 else -1
        agreeing = [(w, v) for w, v in values if w * v * sign > 0]
        if agreeing:
            out.view(-1)[index] = sum(w * v for w, v in agreeing) / sum(w for w, _ in agreeing)
    return out


def slow_knots(deltas: list[Tensor], rank: int) -> Tensor:
    """From whole deltas, which have no more than `rank` directions together."""
    u, s, v = torch.linalg.svd(torch.cat(deltas, 1), full_matrices=False)
    parts = v[:rank].split(deltas[0].shape[1], 1)
    return u[:, :rank] @ ties([s[:rank, None] * part for part in parts], [*WEIGHTS.values()])


def test_knots_is_its_definition(folder: Path) -> None:
    """The signs of singular vectors are free, and change nothing."""
    result, base = merged(folder, KNOTS), tensors(folder / "base")
    for module, rank in ((Q, 6), (DOWN, 6)):
        name = f"{module}.weight"
        deltas = []
        for each in RANKS:
            update = expert(folder, each).tensors[name].update
            zero = torch.zeros(base[name].shape, dtype=torch.float64)
            content = tensors(folder / each)
            b, a = (content.get(f"base_model.model.{module}.lora_{x}.weight") for x in "BA")
            deltas.append(
                zero
                if update is None or b is None or a is None
                else update.scale * b.double() @ a.double()
            )
        expected = base[name].double() + SETTINGS["scale"] * slow_knots(deltas, rank)
        torch.testing.assert_close(result[name].double(), expected, rtol=1e-5, atol=1e-6)
    assert {n for n in base if not result[n].equal(base[n])} == {f"{Q}.weight", f"{DOWN}.weight"}


def test_core_space_by_its_own_bases(folder: Path) -> None:
    """U are the left singular vectors of all B side by side, V the right ones of all A."""
    result, base = merged(folder, CORE, "ac"), tensors(folder / "base")
    name = f"{DOWN}.weight"
    pairs = []
    for each in "ac":
        content = tensors(folder / each)
        update = expert(folder, each).tensors[name].update
        assert update
        b, a = (content[f"base_model.model.{DOWN}.lora_{x}.weight"].double() for x in "BA")
        pairs.append((update.scale * b, a))
    u = torch.linalg.svd(torch.cat([b for b, _ in pairs], 1), full_matrices=False)[0]
    v = torch.linalg.svd(torch.cat([a for _, a in pairs], 0), full_matrices=False)[2]
    core = ties([u.T @ b @ a @ v.T for b, a in pairs], [WEIGHTS["a"], WEIGHTS["c"]])
    expected = base[name].double() + SETTINGS["scale"] * u @ core @ v
    torch.testing.assert_close(result[name].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [KnotsTies, CoreTies])
def test_with_nothing_trimmed_nothing_is_lost(kind: Any, folder: Path) -> None:
    """A merge of one expert is that expert."""
    more: dict[str, Any] = {"isotropic": False} if kind is CoreTies else {}
    method = kind(**{**SETTINGS, "density": 1.0, "weight": 1.0, "scale": 1.0}, **more)
    for name in "abc":
        alone, own = merged(folder, method, name), expert(folder, name)
        for tensor, value in alone.items():
            torch.testing.assert_close(value, own.tensor(tensor), rtol=1e-5, atol=1e-6)


def test_an_isotropic_core_has_equal_singular_values(folder: Path) -> None:
    method = CoreTies(**{**SETTINGS, "density": 1.0}, isotropic=True)
    name = f"{DOWN}.weight"
    delta = merged(folder, method)[name].double() - tensors(folder / "base")[name].double()
    s = torch.linalg.svdvals(delta)
    torch.testing.assert_close(s[:6] / s[0], torch.ones(6).double(), rtol=1e-4, atol=1e-4)
    assert s[6] < 1e-4 * s[0]


@pytest.mark.parametrize("method", [KNOTS, CORE])
def test_threads_and_blocks_change_no_bit(
    method: DirectedMethod, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = merged(folder, method)
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (77,))
    assert all(t.equal(first[n]) for n, t in merged(folder, method, threads=3).items())


def test_whole_models_are_merged_too(folder: Path, tmp_path: Path) -> None:
    """As factors of full rank."""
    base = checkpoint(folder, "base")
    made = expert(folder, "c")
    shutil.copytree(folder / "base", tmp_path / "whole")
    save_file({n: made.tensor(n) for n in made.tensors}, tmp_path / "whole" / "model.safetensors")
    experts = [expert(folder, "a"), checkpoint(tmp_path, "whole")]
    settings = {**SETTINGS, "weight": 1.0, "density": 1.0, "normalize": False, "scale": 1.0}
    for method in (KnotsTies(**settings), CoreTies(**settings, isotropic=False)):
        (tmp_path / "work").mkdir(exist_ok=True)
        method.work_out(Material(base, experts), tmp_path / "work")
        with CheckpointWriter(tmp_path / "out", base, None) as writer:
            stream_merge(base, experts, method.upon(tmp_path / "work"), writer, seed=0)
        result = tensors(tmp_path / "out")
        assert all(bool(tensor.isfinite().all()) for tensor in result.values())
        changed = {n for n, t in result.items() if not t.equal(base.tensor(n))}
        assert {f"{Q}.weight", f"{DOWN}.weight"} <= changed


@pytest.mark.parametrize("kind", [IsoC, TsvM])
def test_spectral_methods_see_the_rank_of_an_adapter(kind: Any, folder: Path) -> None:
    """Not that of its rounding into float32, which is full."""
    method = kind(weight=1.0, scale=1.0, matrices="linear", others="mean", rank=None)
    result, base = merged(folder, method), tensors(folder / "base")
    for module, rank in ((Q, 6), (DOWN, 6)):
        name = f"{module}.weight"
        s = torch.linalg.svdvals(result[name].double() - base[name].double())
        assert s[rank] < 1e-5 * s[0] < 1e-1 * s[rank - 1]


# A saved merge


def test_a_merge_is_saved_as_an_adapter(cli: Cli, tiny_population: Path, tmp_path: Path) -> None:
    """Relaxed too; what is not of the adapters' rank is refused before work is done."""
    shutil.copytree(tiny_population / "base", tmp_path / "base")
    base = tensors(tmp_path / "base")
    modules = [n.removesuffix(".weight") for n in base if "_proj" in n]
    names = {"one": {}, "two": {"whole": {"model.norm.weight": base["model.norm.weight"] + 0.1}}}
    for rank, (name, more) in enumerate(names.items(), start=1):
        save_adapter(
            tmp_path / name, base, dict.fromkeys(modules[rank:], rank), r=rank, lora_alpha=0.1,
            seed=rank, **more,
        )  # fmt: skip
    table = ", ".join(f"{name}: {tmp_path / name}" for name in names)
    run = (
        "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{{table}}}", "omega=0.4", "benchmarks=none", "tracker=none",
    )  # fmt: skip
    for method in ("task_arithmetic", "knots_ties"):
        for save in ("true", "adapter"):
            done = cli(
                *run, f"method={method}", f"save_model={save}", f"hydra.run.dir={method}-{save}"
            )
            assert done.returncode == 0, done.stdout + done.stderr
        saved = tmp_path / f"{method}-adapter" / "model"
        settings = json.loads((saved / "adapter_config.json").read_text())
        assert settings["r"] == settings["lora_alpha"] == 3
        assert settings["target_modules"] == sorted(modules[1:])
        assert settings["modules_to_save"] == ["model.norm"]
        assert settings["base_model_name_or_path"] == str(tmp_path / "base")
        expected = tensors(tmp_path / f"{method}-true" / "model")
        again = AdaptedCheckpoint(checkpoint(tmp_path, "base"), saved, tmp_path / "base", "again")
        assert again.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(again.tensor(name), tensor, rtol=1e-5, atol=2e-6)
        assert not all(again.tensor(name).equal(base[name]) for name in base)
    card = (saved / "README.md").read_text()
    assert "library_name: peft" in card
    refused = {
        ("method=ties",): "save_model=adapter: Ties does not keep the rank of adapters",
        ("method=linear", f"+population.experts.math={tiny_population / 'math'}"):
            "save_model=adapter: math is a whole model; set save_model=true",
        ("save_model=lora",): "save_model=lora: must be true, false or adapter",
    }  # fmt: skip
    for overrides, words in refused.items():
        done = cli(*run, "save_model=adapter", *overrides, "hydra.run.dir=refused")
        assert done.returncode == 1
        assert words in done.stderr
