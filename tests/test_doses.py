"""What relaxing leaves of a merge, and controls that leave as much, by slow float64 code."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint, tensors
from relaxations import SETTINGS
from test_relaxation import random_model
from torch import Tensor

from aim_exp.aim.dose import Dose, RelaxationReport
from aim_exp.aim.measure import measure
from aim_exp.aim.pull import AnyRelaxation, Relaxation
from aim_exp.aim.relaxation import relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.aim.settings import AimSettings
from aim_exp.checkpoint.modules import checkpoint_places
from aim_exp.checkpoint.names import kind_of, layer_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.diff import compare_checkpoints, main
from aim_exp.merge import DareTies, Linear, MergeMethod, TaskArithmetic
from aim_exp.merge.relaxations import relaxation_for
from aim_exp.merge.stream import stream_merge
from aim_exp.tensors import blocks

OMEGA = 0.3
SUM = TaskArithmetic(weight=1.0, scale=0.7)
RECORDED = {"mean_r": "mean_r", "norm": "norm", "out": "outputs"}
"""What a dose is called in `aim.dose`, and in a record."""
G = torch.Generator().manual_seed(0)


class Family:
    """Base and two experts on disk, what base does on a text, and merges of them."""

    def __init__(self, folder: Path, kind: str = "untied") -> None:
        self.folder = folder
        model = random_model(kind)
        text = torch.randint(0, 768, (2, 32), generator=torch.Generator().manual_seed(0))
        saliency = measure(model, text, lambda n: None)
        model.save_pretrained(folder / "base")
        for i, name in enumerate(("a", "b")):
            generator = torch.Generator().manual_seed(i)
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data += 0.02 * noise
            model.save_pretrained(folder / name)
        self.base: Checkpoint = checkpoint(folder, "base")
        self.experts = [checkpoint(folder, name) for name in ("a", "b")]
        places = checkpoint_places(random_model(kind), self.base.tensors)
        self.saliency: Saliency = saliency.on_checkpoint(places).with_column_norms(self.base)

    def relaxation(
        self, settings: AimSettings, omega: float = OMEGA, method: MergeMethod = SUM
    ) -> AnyRelaxation:
        models = (self.base, *self.experts)
        saliency = [self.saliency] if settings.reads_texts else []
        return relaxation_for(settings, omega, saliency, models, method, seed=0)

    def merge(
        self,
        settings: AimSettings | None,
        omega: float = OMEGA,
        method: MergeMethod = SUM,
        dtype: str | None = None,
        threads: int = 1,
    ) -> tuple[dict[str, Tensor], RelaxationReport]:
        relax = settings and self.relaxation(settings, omega, method)
        with CheckpointWriter(self.folder / "out", self.base, dtype) as writer:
            report = stream_merge(
                self.base, self.experts, method, writer,
                seed=0, relax=relax, dtype=dtype, threads=threads,
            )  # fmt: skip
        merged = {name: tensor.clone() for name, tensor in tensors(self.folder / "out").items()}
        return merged, report

    def slow_doses(
        self, merged: dict[str, Tensor], plain: dict[str, Tensor]
    ) -> dict[str | int | None, Dose]:
        """By kind and layer. Norm and outputs from weights, mean r from their ratio by channel."""
        sums: dict[str | int | None, list[Tensor]] = {}
        base = tensors(self.folder / "base")
        for name in set(self.saliency.channels) & set(base):
            other = 1 - self.saliency.axes[name]
            after, before = (
                (m[name].double() - base[name].double()).square() for m in (merged, plain)
            )
            if before.ndim == 2:
                after, before = after.sum(other), before.sum(other)
            q = self.saliency.moments[name].double()
            r = (after / before).sqrt()
            row = torch.stack([r.sum(), torch.tensor(len(r)), after.sum(), before.sum(),
                               (q * after).sum(), (q * before).sum()])  # fmt: skip
            for kind in ("all", kind_of(name), layer_of(name)):
                sums.setdefault(kind, []).append(row)
        doses = {}
        for kind, rows in sums.items():
            r, n, after, before, q_after, q_before = torch.stack(rows).sum(0).tolist()
            doses[kind] = Dose(r / n, (after / before) ** 0.5, (q_after / q_before) ** 0.5)
        return doses


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def close(dose: Dose, expected: Dose) -> None:
    for measure_name, value in vars(expected).items():
        assert vars(dose)[measure_name] == pytest.approx(value, rel=2e-4), measure_name


@pytest.mark.parametrize("method", [SUM, Linear(weight=1.0)], ids=["delta", "merged"])
@pytest.mark.parametrize("kind", ["untied", "gpt2"])
def test_the_three_doses_of_every_kind(kind: str, method: MergeMethod, tmp_path: Path) -> None:
    family = Family(tmp_path, kind)
    plain, nothing = family.merge(None, method=method)
    merged, report = family.merge(SETTINGS, method=method)
    expected = family.slow_doses(merged, plain)
    del expected[None]  # in no layer
    assert len(expected) == (12 if kind == "untied" else 7) + len(report.layers)
    assert len(report.layers) == 2
    known = {**report.doses, **{layer: each.dose for layer, each in report.layers.items()}}
    assert known.keys() >= expected.keys()
    for name, dose in expected.items():
        close(known[name], dose)
    assert report.doses["all"].outputs < report.doses["all"].norm < 1
    assert set(nothing.doses.values()) == {Dose(1.0, 1.0, 1.0)}


@pytest.mark.parametrize(
    ("control", "matched"),
    [("uniform", "mean_r"), ("shuffled", "mean_r"), ("inverted", "mean_r"),
     ("uniform_norm", "norm"), ("uniform_out", "outputs")],
)  # fmt: skip
def test_a_control_matches_aim_by_its_measure_in_every_kind(
    control: str, matched: str, family: Family
) -> None:
    _, aim = family.merge(SETTINGS)
    _, report = family.merge(replace(SETTINGS, scaling=control))
    for kind, dose in aim.doses.items():
        assert vars(report.doses[kind])[matched] == pytest.approx(vars(dose)[matched], rel=1e-6)
    others = {"mean_r", "norm", "outputs"} - {matched}
    for other in others:
        wanted = vars(aim.doses["q_proj"])[other]
        same = vars(report.doses["q_proj"])[other] == pytest.approx(wanted, rel=1e-4)
        assert not same, other


def test_uniform_global_is_one_constant_with_aims_outputs(family: Family) -> None:
    plain, _ = family.merge(None)
    _, aim = family.merge(SETTINGS)
    merged, report = family.merge(replace(SETTINGS, scaling="uniform_global"))
    assert report.doses["all"].outputs == pytest.approx(aim.doses["all"].outputs, rel=1e-6)
    base, r = tensors(family.folder / "base"), report.doses["all"].mean_r
    for name in family.saliency.channels:
        expected = base[name] + (plain[name] - base[name]) * r
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)


def test_uniform_out_leaves_aims_share_of_a_layers_outputs(family: Family) -> None:
    """On inputs themselves, not their moments: a layer whose channels do not correlate."""
    x = torch.randn(4000, 24, dtype=torch.float64, generator=G)
    x *= torch.logspace(0, 2, 24, dtype=torch.float64)
    x = torch.linalg.qr(x).Q * x.norm(dim=0)
    delta = torch.randn(40, 24, dtype=torch.float64, generator=G)
    name = "w.weight"
    saliency = Saliency(
        {name: x.abs().mean(0).float()}, {name: 1}, 4000, {},
        moments={name: x.square().mean(0).float()},
    )  # fmt: skip
    squares = {name: delta.square().sum(0)}
    r = {
        scaling: Relaxation(
            saliency, OMEGA, replace(SETTINGS, scaling=scaling), 0, squares
        ).factors(name).double()
        for scaling in ("identity", "uniform_out", "uniform_norm")
    }  # fmt: skip
    left = {scaling: (x @ (delta * factors).T).norm() for scaling, factors in r.items()}
    torch.testing.assert_close(left["uniform_out"], left["identity"], rtol=1e-6, atol=0)
    assert left["uniform_norm"] > 1.1 * left["identity"]


@pytest.mark.parametrize("scaling", ["uniform_norm", "uniform_out", "uniform_global"])
def test_where_a_delta_is_zero_a_control_leaves_the_tensor(scaling: str) -> None:
    saliency = Saliency({"a": torch.ones(3)}, {"a": 1}, 1, {}, moments={"a": torch.ones(3)})
    settings = replace(SETTINGS, scaling=scaling)
    factors = Relaxation(saliency, 0.3, settings, 0, {"a": torch.zeros(3).double()}).factors("a")
    assert factors.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "scaling",
    ["identity", "power:2", "threshold:.5", "uniform", "uniform_norm", "uniform_out",
     "uniform_global", "shuffled", "inverted"],
)  # fmt: skip
def test_omega_1_is_the_plain_merge(scaling: str, family: Family) -> None:
    plain, _ = family.merge(None)
    merged, report = family.merge(replace(SETTINGS, scaling=scaling), omega=1.0)
    assert all(torch.equal(merged[name], plain[name]) for name in plain)
    assert report.total.differing == 0


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, scaling="uniform_norm"),
        replace(SETTINGS, scaling="uniform_out", normalise="p99"),
        replace(SETTINGS, scaling="uniform_global", statistic="rms"),
        replace(SETTINGS, dose="out:0.7", normalise="mean", column_norm=True),
    ],
    ids=str,
)
def test_blocks_and_threads_change_no_bit(
    settings: AimSettings, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = DareTies(weight=1.0, scale=1.0, density=0.5, normalize=True, rescale="inv_density")
    first, _ = family.merge(settings, method=method)
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (77,))
    for threads in (1, 4):
        again, report = family.merge(settings, method=method, threads=threads)
        assert all(torch.equal(again[name], first[name]) for name in first)
    assert 0 < report.doses["all"].outputs < 1


def test_elements_that_rounding_hides(family: Family) -> None:
    """How many differ from the plain merge in the file's dtype, where much of AIM vanishes."""
    shares = {}
    for dtype in ("float32", "bfloat16"):
        plain, _ = family.merge(None, dtype=dtype)
        merged, report = family.merge(SETTINGS, omega=0.999, dtype=dtype)
        names = list(family.saliency.channels)
        differing = sum(int((merged[name] != plain[name]).sum()) for name in names)
        assert report.total.differing == differing
        shares[dtype] = differing / sum(plain[name].numel() for name in names)
        assert report.summary()["all"]["differing"] == shares[dtype]
    assert shares["bfloat16"] < 0.5 * shares["float32"]


def test_a_report_is_read_as_it_was_written(family: Family, tmp_path: Path) -> None:
    _, report = family.merge(SETTINGS)
    report.save(tmp_path / "report.json")
    assert RelaxationReport.load(tmp_path / "report.json") == report


# Normalisers and doses


def test_normalisers_by_their_definition() -> None:
    s = 10 ** torch.randn(1000, generator=G)
    units: dict[str, Callable[[Tensor], Tensor]] = {
        "max": lambda v: v.max(),
        "p99": lambda v: torch.quantile(v.double(), 0.99),
        "mean": lambda v: v.double().mean(),
    }
    for normalise, unit in units.items():
        expected = 1 - (s.double() / unit(s)).clamp(max=1) * 0.7
        factors = relaxation(s, OMEGA, normalise=normalise)
        torch.testing.assert_close(factors.double(), expected, rtol=1e-6, atol=0)
        assert factors.min() == pytest.approx(OMEGA)
    mostly_zero = torch.zeros(1000)
    mostly_zero[0] = 5.0
    assert (
        relaxation(mostly_zero, OMEGA, normalise="p99").tolist()
        == [pytest.approx(OMEGA)] + [1.0] * 999
    )


@pytest.mark.parametrize("scaling", ["identity", "power:3", "uniform", "uniform_out", "shuffled"])
@pytest.mark.parametrize(("name", "record"), RECORDED.items())
def test_a_dose_is_met(scaling: str, name: str, record: str, family: Family) -> None:
    settings = replace(SETTINGS, scaling=scaling, dose=f"{name}:.8", normalise="mean")
    relax = family.relaxation(settings, omega=0.9)
    _, report = family.merge(settings, omega=0.9)
    assert vars(report.doses["all"])[record] == pytest.approx(0.8, rel=1e-6)
    assert isinstance(relax, Relaxation)
    assert 0 < relax.omega < 1
    assert vars(relax.expected().doses["all"])[record] == pytest.approx(0.8, rel=1e-6)


def test_the_dose_of_an_omega_gives_it_back(family: Family) -> None:
    _, report = family.merge(SETTINGS)
    for name, record in RECORDED.items():
        dose = f"{name}:{vars(report.doses['all'])[record]}"
        relax = family.relaxation(replace(SETTINGS, dose=dose))
        assert isinstance(relax, Relaxation)
        assert relax.omega == pytest.approx(OMEGA, abs=1e-5)


def test_a_dose_of_1_is_the_plain_merge(family: Family) -> None:
    plain, _ = family.merge(None)
    merged, _ = family.merge(replace(SETTINGS, dose="out:1"))
    assert all(torch.equal(merged[name], plain[name]) for name in plain)


def test_a_dose_that_no_omega_leaves_is_refused(family: Family) -> None:
    with pytest.raises(ValueError, match=r"aim.dose=norm:0.01: at omega 0, 0\.\d+ is left"):
        family.relaxation(replace(SETTINGS, dose="norm:0.01"))


# From the weights alone


@pytest.mark.parametrize("scaling", ["identity", "uniform_out"])
def test_diff_tells_the_dose_of_a_relaxed_checkpoint(
    scaling: str, family: Family, tmp_path: Path
) -> None:
    family.merge(None)
    shutil.copytree(family.folder / "out", tmp_path / "plain")
    _, report = family.merge(replace(SETTINGS, scaling=scaling))
    relaxed, plain = checkpoint(family.folder, "out"), checkpoint(tmp_path, "plain")
    by_kind = compare_checkpoints(relaxed, plain, family.base, family.saliency).by_kind()
    assert len(by_kind) == 12
    for kind, difference in by_kind.items():
        if kind == "embed_tokens":
            assert difference.dose == Dose(None, 1.0, None)
        else:
            close(difference.dose, report.doses[kind])
    without = compare_checkpoints(relaxed, plain, family.base).total.dose
    assert (without.mean_r, without.outputs) == (None, None)


def test_diff_shows_the_doses(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family.saliency.save(tmp_path)
    a, b, base = (str(family.folder / name) for name in ("a", "b", "base"))
    assert main([a, b, "--base", base, "--saliency", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    headings = ["equal", "distance", "cosine", "norm", "mean r", "outputs"]
    assert re.search(r"\s+".join(headings), shown)
    total = next(line for line in shown.splitlines() if "total" in line).split()
    assert all(float(cell) > 0 for cell in total[-3:])
