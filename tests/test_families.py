"""Every family of models: merge, relax, save, reload, compare every tensor."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tensors
from conftest import Cli
from families import (
    FAMILIES,
    OMEGA,
    SUM,
    run_blocks,
    saliency_of,
    save_family,
    text_blocks,
)
from relaxations import SETTINGS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from aim_exp.aim.measure import measure, measure_layerwise
from aim_exp.aim.pull import Relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.modules import auto_class
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge.stream import stream_checkpoint, stream_merge

NOT_REACHED = ("visual.", "vision_tower.", "multi_modal_projector.", "e_score_correction_bias")
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "wpe.weight")


def test_the_families_are_these() -> None:
    assert len(FAMILIES) == 17


def test_merge_relax_save_reload(saved: tuple[str, Path]) -> None:
    family, folder = FAMILIES[saved[0]], saved[1]
    base, a, b = (Checkpoint(folder / name, name) for name in ("base", "a", "b"))
    live = LiveModel(folder / "base", "float32", "cpu")
    assert set(live.places) == set(base.tensors)
    saliency = saliency_of(live)
    with CheckpointWriter(folder / "out", base, None) as writer:
        relax = Relaxation(saliency, OMEGA, SETTINGS, 0)
        report = stream_merge(base, [a, b], SUM, writer, seed=0, relax=relax)

    # Every tensor is what the definition says, on the names of the files.
    start, first, second, out = (tensors(folder / name) for name in ("base", "a", "b", "out"))
    assert set(out) == set(start)
    assert saliency.unseen == []
    relaxed = set()
    for name, tensor in out.items():
        expected = first[name] + second[name] - start[name]
        if name in saliency.channels and name not in saliency.tied:
            s = saliency.channels[name]
            r = 1 - s / s.max() * (1 - OMEGA)
            r = r[:, None] if saliency.axes[name] == 0 and tensor.ndim == 2 else r
            expected = start[name] + (expected - start[name]) * r
            relaxed.add(name)
        torch.testing.assert_close(tensor, expected, msg=name)

    # All of the language tower is relaxed, but biases and embeddings, and nothing else is.
    reachable = {name for name in out if not any(part in name for part in NOT_REACHED)}
    wanted = {n for n in reachable if n.endswith("weight") and not n.endswith(EMBEDDINGS)}
    assert relaxed == wanted
    assert (len(relaxed), len(out)) == (family.relaxed, family.tensors)
    counts = report.summary()["all"]
    assert counts["parameters"] == sum(tensor.numel() for tensor in out.values())
    assert counts["relaxed_parameters"] == sum(out[name].numel() for name in wanted)

    # It loads, whole, and the live model that got the same weights answers the same.
    fresh, loading = auto_class(AutoConfig.from_pretrained(folder / "out")).from_pretrained(
        folder / "out", dtype="auto", output_loading_info=True
    )
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ids = text_blocks()[:1]
    with torch.no_grad():
        before = live.model(input_ids=ids).logits
        stream_checkpoint(Checkpoint(folder / "out", "out"), live)
        after = live.model(input_ids=ids).logits
        assert torch.equal(after, fresh.eval()(input_ids=ids).logits)
    assert not torch.equal(before, after)
    held = live.model.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, held[name]), name


def test_saliency_is_each_modules_mean_input(saved: tuple[str, Path]) -> None:
    """By hooks that keep every input, under the names of the modules."""
    live = LiveModel(saved[1] / "base", "float32", "cpu")
    saliency = measure(live.model, text_blocks(), lambda n: None)
    kept: dict[str, list[Tensor]] = {}
    for name, module in live.model.named_modules():
        if getattr(module, "weight", None) is None or isinstance(module, nn.Embedding):
            continue

        def keep(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            kept.setdefault(f"{name}.weight", []).append((*args, *kwargs.values())[0])

        module.register_forward_pre_hook(keep, with_kwargs=True)
        if f"{name}.weight" in saliency.axes:
            rows = module.weight.ndim == 1 or isinstance(module, Conv1D)
            assert saliency.axes[f"{name}.weight"] == (0 if rows else 1)
    run_blocks(live, text_blocks())
    plain = {name for name in saliency.channels if name.endswith("weight")}
    assert plain == set(kept)
    for name in plain:
        mean = torch.cat([x.double().abs().flatten(0, -2) for x in kept[name]]).mean(0)
        torch.testing.assert_close(saliency.channels[name], mean.float(), msg=name)


def test_buffers_of_old_files_are_passed_over(tmp_path: Path, tiny_population: Path) -> None:
    """transformers 4.31 saved the rotary frequencies, and GPT-2's files have its masks."""
    old = {"llama": "model.layers.0.self_attn.rotary_emb.inv_freq", "gpt2": "h.0.attn.bias"}
    for kind, buffer in old.items():
        save_family(kind, tmp_path / kind, tiny_population / "base")
        file = tmp_path / kind / "a" / "model.safetensors"
        save_file({**load_file(file), buffer: torch.ones(3)}, file, {"format": "pt"})
        base, a = (Checkpoint(tmp_path / kind / name, name) for name in ("base", "a"))
        assert fit_problems(base, [a]) == []
        live = LiveModel(a.folder, "float32", "cpu")  # by itself, and in base's place
        assert set(live.places) == set(a.tensors) - {buffer}
        held = {name: tensor.clone() for name, tensor in live.model.state_dict().items()}
        live = LiveModel(base.folder, "float32", "cpu")
        stream_checkpoint(a, live)
        assert all(torch.equal(held[name], t) for name, t in live.model.state_dict().items())


# Layer by layer


def test_layer_by_layer_gives_the_same_statistics(saved: tuple[str, Path]) -> None:
    folder = saved[1] / "base"
    live = LiveModel(folder, "float32", "cpu")
    layerwise = LayerwiseModel(Checkpoint(folder, "base"), "float32", "cpu")
    assert layerwise.places == live.places
    whole = measure(live.model, text_blocks(), lambda n: None)
    steps: list[int] = []
    parts = measure_layerwise(layerwise, text_blocks(), steps.append)
    assert len(steps) == 3 * 2
    assert parts.axes == whole.axes
    assert parts.tied == whole.tied
    assert parts.tokens == whole.tokens
    assert parts.channels.keys() == whole.channels.keys()
    for name, channels in whole.channels.items():
        assert torch.equal(parts.channels[name], channels), name
    held = [p for layer in layerwise.layers for p in layer.parameters() if p.device.type != "meta"]
    assert held == []


def test_a_run_that_reads_layer_by_layer(cli: Cli, tmp_path: Path, family: Path) -> None:
    saliency = {}
    for offload in ("none", "layers"):
        cache = tmp_path / offload
        done = cli(
            "population=custom", f"population.base={family / 'base'}",
            f"population.experts={{a: {family / 'a'}}}", "benchmarks=none", "tracker=none",
            f"calibration.offload={offload}", f"hydra.run.dir=run_{offload}", cache=cache,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (saliency[offload],) = cache.glob("saliency/*")
    whole, parts = (Saliency.load(folder) for folder in saliency.values())
    assert saliency["none"].name == saliency["layers"].name  # the numbers are equal, so the key is
    assert whole.channels.keys() == parts.channels.keys()
    assert all(torch.equal(parts.channels[name], s) for name, s in whole.channels.items())


# A run


@pytest.mark.parametrize("kind", ["qwen2_vl", "mixtral"])
def test_a_run_from_weights_to_scores(
    kind: str, cli: Cli, tmp_path: Path, tiny_population: Path
) -> None:
    save_family(kind, tmp_path, tiny_population / "base")
    done = cli(
        "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{a: {tmp_path / 'a'}, b: {tmp_path / 'b'}}}", "tracker=none",
        "benchmarks.limit=1", "benchmarks.generation={max_gen_toks: 4}",
        "calibration.n_samples=4", "evaluator.max_length=128", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(record["scores"]) == 6
    counts = record["dose"]["all"]
    assert 0 < counts["relaxed_parameters"] < counts["parameters"]
    assert counts["parameters"] == sum(t.numel() for t in tensors(tmp_path / "base").values())
