"""Settings that vary over experts, depth and tensors: each tensor as by its own numbers."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from built_runs import built, keys
from checkpoints import tensors
from conftest import Cli
from relaxations import SETTINGS
from test_doses import Family
from torch import Tensor

from aim_exp import merge
from aim_exp.checkpoint.varying import Setting, depths, setting_at
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.errors import ConfigError
from aim_exp.merge import Linear, MergeMethod, TaskArithmetic
from aim_exp.merge.given import MergedInPart
from aim_exp.merge.groundwork import Material
from aim_exp.merge.method import WeightedMethod
from aim_exp.merge.stream import stream_merge
from aim_exp.tensors import blocks

SETTING: Setting = {
    "*.q_proj.*": 0.25,
    "*.mlp.*": {"a": [0.2, 0.6], "b": [0.5, 0.3, 0.7]},
    "*": {"a": 0.9, "b": {"*embed*": 0.35, "*": 0.8}},
}
"""With every notation, in both orders; numbers that are weights and densities."""
METHODS: dict[str, Callable[[Any, Any], MergeMethod]] = {
    "linear": lambda w, d: merge.Linear(weight=w),
    "task_arithmetic": lambda w, d: merge.TaskArithmetic(weight=w, scale=0.8),
    "ties": lambda w, d: merge.Ties(
        weight=w, density=d, scale=1.0, normalize=True, trim_scope="tensor"
    ),
    "dare_linear": lambda w, d: merge.DareLinear(
        weight=w, density=d, scale=1.0, rescale="inv_density"
    ),
    "dare_ties": lambda w, d: merge.DareTies(
        weight=w, density=d, scale=1.0, rescale="l1", normalize=True
    ),
    "breadcrumbs": lambda w, d: merge.Breadcrumbs(weight=w, density=d, scale=1.0, gamma=0.05),
    "breadcrumbs_ties": lambda w, d: merge.BreadcrumbsTies(
        weight=w, density=d, scale=1.0, gamma=0.05, normalize=True
    ),
    "della_linear": lambda w, d: merge.DellaLinear(
        weight=w, density=d, scale=1.0, rescale=None, epsilon=0.05
    ),
    "della": lambda w, d: merge.Della(
        weight=w, density=d, scale=1.0, rescale=None, epsilon=0.05, normalize=True
    ),
    "consensus_ta": lambda w, d: merge.ConsensusTa(weight=w, scale=1.0, mask_lambda=0.4, k=2),
    "nuslerp": lambda w, d: merge.NuSlerp(weight=w),
    "tsv_m": lambda w, d: merge.TsvM(
        weight=w, scale=1.0, matrices="linear", others="mean", rank=None
    ),
    "iso_c": lambda w, d: merge.IsoC(
        weight=w, scale=1.0, matrices="linear", others="mean", rank=None
    ),
    "iso_cts": lambda w, d: merge.IsoCts(
        weight=w, scale=1.0, matrices="all", others="sum", rank=None, common=0.5
    ),
    "wudi": lambda w, d: merge.Wudi(
        weight=w, scale=1.0, matrices="linear", others="zero", solver="closed_form"
    ),
    "knots_ties": lambda w, d: merge.KnotsTies(
        weight=w, density=d, scale=1.0, normalize=True, matrices="linear", others="mean"
    ),
    "core_ties": lambda w, d: merge.CoreTies(
        weight=w,
        density=d,
        scale=1.0,
        normalize=False,
        matrices="all",
        others="mean",
        isotropic=False,
    ),
}
MEASURED = {merge.Regmean, merge.Diagonal, merge.Fisher}
"""With weights too, which they take as the others do; they need texts."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def streamed(
    family: Family, method: MergeMethod, threads: int = 1, **more: Any
) -> dict[str, Tensor]:
    folder = family.folder / "work"
    if method.groundwork(["a", "b"]) is not None:
        folder.mkdir(exist_ok=True)
        method.work_out(Material(family.base, family.experts, threads=threads), folder)
        method = method.upon(folder)
    with CheckpointWriter(family.folder / "out", family.base, None) as writer:
        stream_merge(family.base, family.experts, method, writer, seed=3, threads=threads, **more)
    return {name: tensor.clone() for name, tensor in tensors(family.folder / "out").items()}


def slow(setting: Any, name: str, layer: int | None, expert: str) -> float:
    """Of two layers: by the notation's words."""
    if isinstance(setting, dict):
        if expert in setting:
            return slow(setting[expert], name, layer, expert)
        for key, value in setting.items():
            if all(part in name for part in key.split("*")):
                return slow(value, name, layer, expert)
    if isinstance(setting, list):
        first = layer == 0 or (layer is None and "embed" in name)
        return setting[0] if first else setting[-1]
    assert isinstance(setting, float)
    return setting


def test_the_methods_with_weights_are_these() -> None:
    weighted = {each for each in merge.METHODS.values() if issubclass(each, WeightedMethod)}
    assert {type(make(1.0, 1.0)) for make in METHODS.values()} | MEASURED == weighted
    assert len(METHODS) == 17


@pytest.mark.parametrize("name", METHODS)
def test_each_tensor_is_merged_by_its_own_numbers(
    name: str, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every block and thread."""
    varying = METHODS[name](SETTING, SETTING)
    assert not varying.problems(["a", "b"], ["a", "b"])
    merged = streamed(family, varying)
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (400,))
    assert all(t.equal(merged[n]) for n, t in streamed(family, varying, threads=3).items())
    alike: dict[tuple[float, ...], list[str]] = {}
    for tensor in merged:
        layer = next((int(part) for part in tensor.split(".") if part.isdigit()), None)
        values = tuple(slow(SETTING, tensor, layer, expert) for expert in ("a", "b"))
        alike.setdefault(values, []).append(tensor)
    assert len(alike) == 5
    for (a, b), names in alike.items():
        plain = streamed(family, METHODS[name]({"a": a, "b": b}, {"a": a, "b": b}))
        assert all(plain[each].equal(merged[each]) for each in names)


def test_a_list_goes_from_the_first_layer_to_the_last() -> None:
    layers = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(5)]
    names = ["model.embed_tokens.weight", *layers, "model.norm.weight", "lm_head.weight",
             "wpe.weight", "visual.blocks.0.x", "visual.blocks.1.x"]  # fmt: skip
    depth_of = depths(names)
    assert [*depth_of.values()] == [0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 0, 0, 1]

    def of(setting: Setting) -> list[float]:
        return [setting_at(setting, name, depth_of[name], "") for name in names[:7]]

    assert of([0.0, 1.0]) == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert of([0.0, 1.0, 0.0]) == [0, 0, 0.5, 1, 0.5, 0, 0]
    assert of([0.7]) == of(0.7) == [0.7] * 7
    assert of({"*.layers.1.*": 1, "*layers*": 2, "*": 3}) == [3, 2, 1, 2, 2, 2, 3]


def test_omega_varies(family: Family) -> None:
    by = {"*.mlp.*": [0.2, 0.6], "*.k_proj.*": 1.0}
    method = TaskArithmetic(weight=1.0, scale=1.0)
    merged, _ = family.merge(replace(SETTINGS, omega_by=by), 0.4, method)
    alike: dict[float, list[str]] = {}
    for name in merged:
        omega = 1.0 if ".k_proj." in name else 0.4
        omega = (0.2 if ".0." in name else 0.6) if ".mlp." in name else omega
        alike.setdefault(omega, []).append(name)
    assert alike.keys() == {0.2, 0.6, 1.0, 0.4}
    for omega, names in alike.items():
        plain, _ = family.merge(SETTINGS, omega, method)
        assert all(plain[name].equal(merged[name]) for name in names)


@pytest.mark.parametrize("method", [Linear(weight=1.0), METHODS["ties"](1.0, 0.3)])
@pytest.mark.parametrize("relaxed", [False, True])
def test_tensors_are_taken_whole(relaxed: bool, method: MergeMethod, family: Family) -> None:
    take = {"*.layers.0.mlp.*": None, "*.layers.0.*": "base", "*.v_proj.*": "b"}
    part = MergedInPart(method=method, take=take)
    settings = SETTINGS if relaxed else None
    merged, _ = family.merge(settings, method=part)
    plain, _ = family.merge(settings, method=method)
    base, b = (tensors(family.folder / name) for name in ("base", "b"))
    counts = dict.fromkeys(("base", "b", "merged"), 0)
    for name, tensor in merged.items():
        if ".layers.0." in name and ".mlp." not in name:
            counts["base"] += 1
            assert tensor.equal(base[name])
        elif ".v_proj." in name:
            counts["b"] += 1
            assert relaxed or tensor.equal(b[name])
            assert not tensor.equal(plain[name])
        else:
            counts["merged"] += 1
            assert tensor.equal(plain[name])
    assert counts["base"] == 6
    assert counts["b"] == 1


WRONG: dict[str, str] = {
    "method.weight={code: 1}": "method.weight: nothing for instruct, math; name each expert",
    "method.weight={code: 1, *.mlp.*: 1}": "method.weight: mixes experts and filters",
    "method.weight={*.mlp.*: 1}": "method.weight: nothing for the other tensors; give '*' last",
    "method.weight={cod: 1, instruct: 1, math: 1}": "method.weight.cod: no such expert; there are",
    "method.weight=[1,x]": "method.weight[1]=x: must be a number",
    "method.weight={*.mlp.*: {code: 1}, *: 1}": "method.weight.*.mlp.*: nothing for instruct, math",
    "method.density=[0.2,1.2]": "method.density[1]=1.2: must be in (0, 1]",
    "method.density={*.mlp.*: 0, *: 1}": "method.density.*.mlp.*=0: must be in (0, 1]",
    "method.density=x": "method.density=x: must be a number",
    "method.density={*.mpl.*: 0.1, *: 1}": "method.density: no tensor is like *.mpl.*; they are",
    "method.weight={code: {*.mpl.*: 1, *: 1}, instruct: 1, math: 1}": "method.weight: no tensor is",
    "method.weight={*: 1, *.mlp.*: 2}": "method.weight: an earlier filter has all tensors that",
    "method.weight={*.mlp.*: {*.q_proj.*: 1, *: 2}, *: 1}": "no tensor is like *.q_proj.*; they",
    "aim.omega_by={*.mpl.*: 0.1}": "aim.omega_by: no tensor is like *.mpl.*; they",
    "aim.omega_by={code: 0.1}": "aim.omega_by.code: no such expert; there are none here",
    "aim.omega_by=[0.1,2]": "aim.omega_by[1]=2: must be in [0, 1]",
    "take={*.mpl.*: base}": "take: no tensor is like *.mpl.*; they are called like",
    "take={*.mlp.*: cod}": "take.*.mlp.*=cod: no such model; there are base, code, instruct, math",
    "take={mlp: base}": "take.mlp: must be a filter of tensor names, as '*.mlp.*'",
    "take=code": "take=code: must be a table {filter: model}, or null",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_cannot_be_is_refused(override: str, tiny_cache: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(WRONG[override])):
        built(tiny_cache, override)


@pytest.mark.parametrize("other", ["aim.dose=out:0.8", "aim.scaling=lines"])
def test_two_strengths_are_refused(other: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"aim\.omega_by=\[0\.1, 0\.2\]: omega plays no part"):
        built(tmp_path, "aim.omega_by=[0.1,0.2]", other)


def test_weights_merged_elsewhere_are_taken_in_part(tiny_population: Path, tmp_path: Path) -> None:
    given = ("method=checkpoint", f"method.path={tiny_population / 'code'}")
    runs = [built(tmp_path, *given, *take) for take in ((), ("take={*.mlp.*: base}",))]
    assert keys(runs[0])["merged"] != keys(runs[1])["merged"]
    with pytest.raises(ConfigError, match=r"=code: no such model; there are base, and null"):
        built(tmp_path, *given, "take={*.mlp.*: code}")


def test_weights_of_a_tensor_that_add_up_to_nothing(tiny_cache: Path) -> None:
    weight = "method.weight={*.mlp.*: {code: 1, instruct: -1, math: 0}, *: 1}"
    with pytest.raises(ValueError, match=r"must not add up to zero in model\.layers\.0\.mlp"):
        built(tiny_cache, "method=linear", weight)
    built(tiny_cache, "method=task_arithmetic", weight)


def test_a_threshold_of_the_whole_model_is_one_number_for_each_expert(tmp_path: Path) -> None:
    each = "method.density={code: 0.1, instruct: 0.2, math: 0.3}"
    runs = [built(tmp_path, "method.trim_scope=model", *more) for more in ((), (each,))]
    assert keys(runs[0])["merged"] != keys(runs[1])["merged"]
    with pytest.raises(ValueError, match="of a whole model it is one number for each expert"):
        built(tmp_path, "method.trim_scope=model", "method.density=[0.1,0.2]")


def test_a_runs_record_and_card_have_what_varies(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "method.weight={*.mlp.*: {code: [0.2,1], instruct: 1, math: 1}, *: 1}",
        "method.density=[0.1,0.3]", "aim.omega_by={*.mlp.*: 0.3}", "take={*norm*: math}",
        "benchmarks=none", "tracker=none", "save_model=true", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["config"]["take"] == {"*norm*": "math"}
    assert record["config"]["method"]["density"] == [0.1, 0.3]
    card = (tmp_path / "run" / "model" / "README.md").read_text().replace("\\", "")
    for words in ("density [0.1, 0.3]", "omega_by {'*.mlp.*': 0.3}", "taken whole: *norm* of math"):
        assert words in card
    recipe = (tmp_path / "run" / "model" / "aim_exp.yaml").read_text()
    assert "'*norm*': math" in recipe
