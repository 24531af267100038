"""The table before scoring: deltas against float64 code, and its place in a run."""

import json
from pathlib import Path

import pytest
import torch
from built_runs import built
from checkpoints import tensors
from conftest import Cli
from test_doses import Family

from aim_exp.checkpoint.names import kind_of
from aim_exp.merge.deltas import DeltaTable, delta_table
from aim_exp.tensors import blocks


@pytest.mark.parametrize(("elements", "threads"), [(1 << 18, 1), (77, 4)])
def test_the_deltas_by_kind(
    elements: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks.row_blocks, "__defaults__", (elements,))
    family = Family(tmp_path)
    table = delta_table((family.base, *family.experts), threads=threads)
    base, a, b = (tensors(tmp_path / name) for name in ("base", "a", "b"))
    kinds = {kind_of(name) for name in base}
    assert set(table.sums) == kinds
    assert len(kinds) == 12
    for kind in (*kinds, "all"):
        names = [name for name in base if kind in (kind_of(name), "all")]
        start, *deltas = (
            torch.cat([(m[name] - (0 if m is base else base[name])).flatten() for name in names])
            for m in (base, a, b)
        )
        x, y = (delta.double() for delta in deltas)
        found = table.summary()[kind]
        for expert, delta in (("a", x), ("b", y)):
            expected = delta.norm() / start.double().norm()
            assert found["relative"][expert] == pytest.approx(expected.item(), rel=1e-6)
        cosine = (x @ y / (x.norm() * y.norm())).item()
        assert found["cosine"]["a b"] == pytest.approx(cosine, rel=1e-6)
        both = (x != 0) & (y != 0)
        alike = (x.sign() == y.sign())[both].double().mean().item()
        assert found["sign_agreement"]["a b"] == pytest.approx(alike)
    table.save(tmp_path / "deltas.json")
    assert DeltaTable.load(tmp_path / "deltas.json", ["a", "b"]).summary() == table.summary()


def test_an_expert_that_is_base_has_no_direction(tmp_path: Path) -> None:
    family = Family(tmp_path)
    deltas = delta_table((family.base, family.base, family.experts[0])).summary()["all"]
    assert deltas["relative"]["base"] == 0
    assert deltas["cosine"]["base a"] is deltas["sign_agreement"]["base a"] is None


def test_the_key_is_of_the_models_alone(tmp_path: Path) -> None:
    """Every method and omega shares the table; where something is scored there is none."""
    unscored = built(tmp_path, "benchmarks=none").plan.deltas
    assert unscored
    for same in ("method=linear", "omega=null", "aim.scaling=lines", "calibration.seed=1"):
        assert built(tmp_path, "benchmarks=none", same).plan.deltas == unscored
    for other in ("population.merge=[code,math]", "population.seed=1"):
        assert built(tmp_path, "benchmarks=none", other).plan.deltas != unscored
    assert built(tmp_path).plan.deltas is None
    assert built(tmp_path, "benchmarks=none", "method=none").plan.deltas is None


@pytest.mark.slow
def test_a_run_that_scores_nothing_has_the_table(cli: Cli, tmp_path: Path) -> None:
    done = cli("benchmarks=none", "tracker=none", "hydra.run.dir=run", "aim.saliency=mean",
               "aim.dose=out:0.8", "aim.normalise=p99", "dtype=bfloat16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "run" / "result.json").read_text())["deltas"]
    assert set(table["all"]["cosine"]) == {"code instruct", "code math", "instruct math"}
    assert all(0 < value < 1 for value in table["q_proj"]["relative"].values())
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    left = record["dose"]["all"]
    assert left["outputs"] == pytest.approx(0.8, rel=1e-5)
    assert 0 < left["differing"] < 0.9  # bfloat16 hides a part
