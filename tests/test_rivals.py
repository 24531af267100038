"""LiNeS and singular value calibration against float64 code; statistics beyond mean |x|."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from built_runs import built
from checkpoints import tensors
from relaxations import SETTINGS
from test_doses import SUM, Family
from test_relaxation import random_model
from torch import Tensor

from aim_exp.aim.measure import measure
from aim_exp.aim.pull import LayerScaling, Relaxation
from aim_exp.aim.relaxation import named_scaling, relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.aim.settings import SCALINGS
from aim_exp.checkpoint.names import layer_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.merge import Linear, MergeMethod, TaskArithmetic, Ties
from aim_exp.tensors import blocks

TIES = Ties(weight=1.0, scale=1.0, density=0.4, normalize=True, trim_scope="tensor")
G = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def deltas(family: Family) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    base, *experts = (tensors(family.folder / name) for name in ("base", "a", "b"))
    return base, [{n: e[n].double() - base[n].double() for n in base} for e in experts]


@pytest.mark.parametrize("method", [TaskArithmetic(weight=1.0, scale=1.0), TIES])
@pytest.mark.parametrize("slope", [None, 0.3])
def test_lines_by_its_definition(slope: float | None, method: MergeMethod, family: Family) -> None:
    settings = replace(SETTINGS, scaling="lines" if slope is None else f"lines:{slope}")
    plain, _ = family.merge(None, method=method)
    merged, report = family.merge(settings, method=method)
    base, (a, b) = deltas(family)
    plain_sum = sum((a[name] + b[name]).abs().sum() for name in base)
    merged_sum = sum((plain[name].double() - base[name].double()).abs().sum() for name in base)
    first = plain_sum / (2 * merged_sum)
    if isinstance(method, TaskArithmetic) and not isinstance(method, Ties):
        assert first == pytest.approx(0.5, rel=1e-5)
    slope = 1 - first if slope is None else slope
    for name in base:
        layer = layer_of(name)
        r = first + slope * (0 if layer is None else layer) / (2 - 1)
        start = base[name].double()
        expected = start + (plain[name].double() - start) * r
        torch.testing.assert_close(merged[name].double(), expected, rtol=1e-5, atol=1e-6, msg=name)
    assert report.omega is None
    assert report.total.relaxed_parameters == report.total.parameters
    assert report.doses["all"].outputs is None
    assert 0 < report.doses["all"].norm < 1


def test_lines_of_one_model_starts_at_its_value() -> None:
    relax = LayerScaling(0.25, 0.75, {"model.layers": 5, "visual.blocks": 3}, ())
    factors = {
        "model.layers.0.q.weight": 0.25,
        "model.layers.4.mlp.experts.7.up.weight": 1.0,
        "visual.blocks.1.qkv.weight": 0.625,
        "model.norm.weight": 0.25,
    }
    assert {name: relax.factor(name) for name in factors} == factors


@pytest.mark.parametrize("floor", [1.0, 0.1])
@pytest.mark.parametrize("method", [SUM, TIES, Linear(weight=1.0)], ids=["sum", "ties", "merged"])
def test_svc_by_its_definition(method: MergeMethod, floor: float, family: Family) -> None:
    plain, _ = family.merge(None, method=method)
    merged, report = family.merge(replace(SETTINGS, scaling=f"svc:{floor}"), method=method)
    base, experts = deltas(family)
    calibrated = 0
    for name, start in base.items():
        if layer_of(name) is None or start.ndim == 1:
            assert torch.equal(merged[name], plain[name]), name
            continue
        delta = plain[name].double() - start.double()
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        expected = torch.zeros_like(delta)
        for i in range(len(s)):
            total = 0.0
            along = u[:, i] @ delta
            for expert in experts:
                own = u[:, i] @ expert[name]
                total += max(floor, (along @ own / (own @ own)).item())
            gamma = len(experts) / total
            assert floor < 1 or gamma <= 1 + 1e-9
            expected += gamma * s[i] * torch.outer(u[:, i], vh[i])
        found = merged[name].double() - start.double()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-5, msg=name)
        calibrated += 1
    assert calibrated == 14
    assert (report.doses["all"].mean_r, report.doses["all"].outputs) == (None, None)
    kept = report.doses["all"].norm
    assert kept is not None
    assert kept < 1 or floor < 1


def test_svc_of_experts_that_agree_counts_once(family: Family) -> None:
    """The sum of T equal deltas is one of them."""
    same = Family.__new__(Family)
    same.__dict__ = {**vars(family), "experts": [family.experts[0]] * 2}
    double = TaskArithmetic(weight=1.0, scale=1.0)
    merged, _ = same.merge(replace(SETTINGS, scaling="svc"), method=double)
    base, (a, _) = deltas(family)
    name = "model.layers.0.mlp.up_proj.weight"
    torch.testing.assert_close(
        merged[name].double() - base[name].double(), a[name], atol=1e-5, rtol=1e-3
    )


@pytest.mark.parametrize("scaling", ["lines", "svc"])
def test_blocks_and_threads_change_no_bit(
    scaling: str, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, scaling=scaling)
    first, _ = family.merge(settings, method=TIES)
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (77,))
    for threads in (1, 4):
        again, _ = family.merge(settings, method=TIES, threads=threads)
        assert all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize("scaling", ["lines", "svc", "identity"])
def test_what_is_excluded_stays(scaling: str, family: Family) -> None:
    plain, _ = family.merge(None)
    settings = replace(SETTINGS, scaling=scaling, exclude=("*.0.*", "*norm*", "*head*", "*embed*"))
    merged, report = family.merge(settings)
    changed = {name for name in plain if not torch.equal(merged[name], plain[name])}
    assert changed <= {name for name in plain if layer_of(name) == 1}
    assert len(changed) == 7 or scaling == "lines"  # where the last layer keeps all
    assert report.doses["norm"].norm == 1


# What is refused


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["aim.scaling=unifrom"], "must be one of identity, .*; did you mean uniform?"),
        (["aim.scaling=power"], "aim.scaling=power: needs a value; say power:0.5"),
        (["aim.scaling=power:x"], "aim.scaling=power=nan: must be"),
        (["aim.scaling=threshold:2"], r"aim.scaling=threshold=2.0: must be in \(0, 1\]"),
        (["aim.scaling=uniform:2"], "uniform takes no value; say aim.scaling=uniform"),
        (["aim.normalise=sum"], "aim.normalise=sum: must be max, p99 or mean"),
        (["aim.saliency=experts"], "aim.saliency=experts: must be base or mean"),
        (["aim.dose=half"], "aim.dose=half: must be mean_r:VALUE or norm:VALUE or out:VALUE"),
        (["aim.dose=out:2"], r"aim.dose=out=2.0: must be in \[0, 1\]"),
        (["aim.dose=out:.8", "aim.scaling=lines"], "aim.dose=out:.8: lines has no omega"),
        (["aim.scaling=svc", "population.merge=[code]"], "aim.scaling=svc: .* at least two"),
        (["aim.scaling=lines", "population.merge=[code]"], "say aim.scaling=lines:0.5"),
        (["calibration.skip_positions=128"], "calibration.skip_positions=128: must be at least 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(overrides: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        built(tmp_path, *overrides)


def test_what_plays_no_part_is_not_refused(tmp_path: Path) -> None:
    built(tmp_path, "aim.scaling=svc", "population.merge=[code]", "omega=null")
    built(tmp_path, "aim.scaling=lines:0.4", "population.merge=[code]")


# Statistics and f


def test_f_by_its_definition() -> None:
    s = torch.rand(200, generator=G)
    unit = s.double() / s.max().double()
    for scaling, f in (
        ("identity", unit),
        ("power:1", unit),
        ("power:2.5", unit**2.5),
        ("threshold:.3", (unit >= 0.3).double()),
    ):
        factors = relaxation(s, 0.4, named_scaling(scaling, 0, "w"))
        torch.testing.assert_close(factors.double(), 1 - f * 0.6, rtol=1e-6, atol=0)
    one = relaxation(s, 0.4, named_scaling("power:1", 0, "w"))
    assert torch.equal(one, relaxation(s, 0.4))
    assert len(SCALINGS) == 11


def test_the_column_norm_is_invariant_under_rescaling_of_channels(tmp_path: Path) -> None:
    """A norm's weight times c, the columns that read it by c: the same function."""
    relaxations: list[Relaxation] = []
    c = torch.logspace(-1, 1, 24)
    for rescale in (False, True):
        model = random_model("untied")
        for layer in model.model.layers if rescale else []:
            layer.input_layernorm.weight.data *= c
            for name in "qkv":
                getattr(layer.self_attn, f"{name}_proj").weight.data /= c
        folder = tmp_path / str(rescale)
        model.save_pretrained(folder / "base")
        text = torch.arange(64).view(1, -1)
        saliency = measure(model, text, lambda n: None)
        saliency = saliency.with_column_norms(Checkpoint(folder / "base", "base"))
        relaxations.append(Relaxation(saliency, 0.4, replace(SETTINGS, column_norm=True), 0))
    plain, rescaled = relaxations
    name = "model.layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(rescaled.factors(name), plain.factors(name), rtol=1e-4, atol=1e-5)
    off = [replace(each, settings=SETTINGS).factors(name) for each in relaxations]
    assert (off[0] - off[1]).abs().max() > 0.1
    norm = "model.layers.1.input_layernorm.weight"
    assert torch.equal(plain.factors(norm), replace(plain, settings=SETTINGS).factors(norm))


def test_the_mean_over_base_and_experts() -> None:
    def of(*values: float) -> Saliency:
        s = torch.tensor(values)
        return Saliency({"w": s}, {"w": 1}, 1, {}, moments={"w": s.square() * 2})

    models = of(1.0, 2.0), of(4.0, 0.0), of(1.0, 1.0)
    for statistic, s in (("mean_abs", [2.0, 1.0]), ("rms", [2.0 * 2**0.5, 2**0.5])):
        settings = replace(SETTINGS, statistic=statistic)
        relax = Relaxation(models[0], 0.4, settings, 0, experts=models[1:])
        torch.testing.assert_close(relax.factors("w"), relaxation(torch.tensor(s), 0.4))


@pytest.mark.parametrize("skip", [1, 4])
@pytest.mark.parametrize("kind", ["untied", "gpt2", "qwen3"])
def test_skipped_positions_are_read_but_not_counted(kind: str, skip: int) -> None:
    model = random_model(kind)
    text = torch.randint(0, 768, (3, 16), generator=G)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if name.endswith(("o_proj", "c_fc", "q_norm")):
            module.register_forward_pre_hook(
                lambda m, args, name=name: seen.setdefault(name, []).append(args[0])
            )
    saliency = measure(model, text, lambda n: None, skip=skip)
    assert saliency.tokens == 3 * (16 - skip)
    assert len(seen) == (4 if kind == "qwen3" else 2)
    for name, inputs in seen.items():
        counted = torch.cat([x[:, skip:].flatten(0, -2) for x in inputs]).double()
        torch.testing.assert_close(
            saliency.channels[f"{name}.weight"].double(), counted.abs().mean(0), rtol=1e-6, atol=0
        )
