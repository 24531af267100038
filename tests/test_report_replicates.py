"""Differences over replicates: which level counts, shared items or own, and what is exploratory."""

import csv
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from records import ITEMS, POPULATION, record, write_all

from aim_exp.report import write
from aim_exp.report.__main__ import main
from aim_exp.report.differences import AVERAGE, GAIN, differences
from aim_exp.report.load import load
from aim_exp.report.replicates import Claim, Replicated, over_replicates
from aim_exp.report.rows import Report, make_report
from aim_exp.statistics import Conclusion, Design, ReplicatedDifference, compare_replicates
from aim_exp.store.run_record import RunRecord
from aim_exp.store.study_lock import Contrast, Job, Role, StudyLock, config_digest

N, BENCHMARKS = 40, 6
Answers = list[list[int]]


def answers(rng: np.random.Generator, right: float) -> Answers:
    return (rng.random((BENCHMARKS, N)) < right).astype(int).tolist()


def pair(replicate: int, rng: np.random.Generator, *draws: str) -> tuple[list[RunRecord], Answers]:
    """A plain merge and AIM in one replicate, and AIM's answers minus the plain merge's."""
    members = {name: answers(rng, fmean(row)) for name, row in POPULATION.items()}
    before, after = answers(rng, 0.5), answers(rng, 0.7)
    own = (f"population.seed={replicate}", *draws)
    records = [
        record("omega=null", *own, scores=before, members=members),
        record("omega=0.4", *own, scores=after, members=members),
    ]
    return records, (np.array(after) - np.array(before)).tolist()


def replicated(report: Report, claim: Claim | None = None) -> Replicated:
    plain, _ = differences(report)
    (row,) = over_replicates(plain, claim or Claim())
    return row


def study(directory: Path, n: int, *, own_items: bool = False) -> tuple[Report, np.ndarray]:
    """`n` replicates: the report and [replicates, benchmarks, items]."""
    rng, truth = np.random.default_rng(0), []
    for replicate in range(n):
        ITEMS.clear()
        draws = (f"benchmarks.items_seed={replicate}",) if own_items else ()
        made, difference = pair(replicate, rng, *draws)
        if own_items:
            for lines in ITEMS.values():
                for line in lines:
                    line["target"] = f"{replicate}: {line['target']}"
        for number, each in enumerate(made):
            write_all(directory / f"{replicate}-{number}", each)
        truth.append(difference)
    return make_report(load(directory)), np.array(truth, dtype=float)


def test_shared_items_are_drawn_too(tmp_path: Path) -> None:
    """The crossed bootstrap of the items' own differences, computed here from the answers."""
    report, truth = study(tmp_path, 6)
    row = replicated(report)
    expected = compare_replicates(ReplicatedDifference(list(truth.swapaxes(0, 1)), True))
    assert row.n == "6 populations"
    assert row.tests[AVERAGE].design == Design.CROSSED_BOOTSTRAP
    assert row.tests[AVERAGE].difference == pytest.approx(expected.difference)
    assert row.tests[AVERAGE].stderr == pytest.approx(expected.stderr)
    assert row.tests[GAIN].design == Design.VALUES, "items of a gain cannot be drawn by row"
    assert row.verdict == Conclusion.BETTER


def test_items_of_their_own_make_a_paired_t(tmp_path: Path) -> None:
    report, truth = study(tmp_path, 6, own_items=True)
    row = replicated(report)
    values = truth.mean(axis=(1, 2))
    test = row.tests[AVERAGE]
    assert test.design == Design.PAIRED_T
    assert test.stderr == pytest.approx(values.std(ddof=1) / np.sqrt(6))
    assert sorted(test.values) == pytest.approx(sorted(values))
    assert row.tests[GAIN].design == Design.PAIRED_T


def test_few_replicates_have_values_alone(tmp_path: Path) -> None:
    report, truth = study(tmp_path, 4)
    row = replicated(report)
    assert row.tests[AVERAGE].design == Design.VALUES
    assert row.adjusted_p is None
    assert row.verdict == Conclusion.INCONCLUSIVE
    assert row.tests[AVERAGE].difference == pytest.approx(truth.mean())


def test_masks_within_a_population_are_averaged_first(tmp_path: Path) -> None:
    """Three populations by two masks are n = 3."""
    rng, records, values = np.random.default_rng(1), [], []
    ITEMS.clear()
    for replicate in range(3):
        own, members = f"population.seed={replicate}", POPULATION
        plain = answers(rng, 0.5)
        inner = []
        for seed in range(2):
            merged = answers(rng, 0.6)
            base = ("method=dare_ties", own, f"seed={seed}")
            records += [record(*base, "omega=null", scores=plain, members=members)]
            records += [record(*base, "omega=0.4", scores=merged, members=members)]
            inner.append((np.array(merged) - np.array(plain)).mean())
        values.append(fmean(inner))
    row = replicated(make_report(load(write_all(tmp_path, *records))))
    assert row.n == "3 populations"
    assert sorted(row.tests[AVERAGE].values) == pytest.approx(sorted(values))


def test_items_that_are_gone_leave_the_values(tmp_path: Path) -> None:
    study(tmp_path, 6)
    for path in tmp_path.rglob("*.jsonl.gz"):
        path.unlink()
    row = replicated(make_report(load(tmp_path)))
    assert row.tests[AVERAGE].design == Design.VALUES
    assert len(row.tests[AVERAGE].values) == 6


def test_a_margin_tells_equivalent_from_inconclusive(tmp_path: Path) -> None:
    report, _ = study(tmp_path, 6)
    wide = replicated(report, Claim(margin=0.5))
    assert wide.verdict == Conclusion.EQUIVALENT
    assert replicated(report, Claim(margin=0.01)).verdict == Conclusion.BETTER


def locked(*jobs: Job) -> StudyLock:
    return StudyLock(
        version=1, created="", name="aim", design={}, primary=Contrast("aim", "plain"),
        secondary=(), margin=50.0, development=(), test=tuple(range(6)), jobs=jobs, items={},
        code="", commit=None, dirty=False,
    )  # fmt: skip


def test_what_is_not_locked_is_exploratory(tmp_path: Path) -> None:
    report, _ = study(tmp_path, 6)
    records = [job.record for job in report.runs.jobs if job.record]
    jobs = [
        Job("plain" if record.omega is None else "aim", record.draws["population.seed"], 0,
            record.overrides, config_digest(record.config))
        for record in records
    ]  # fmt: skip
    row = replicated(report, Claim(study=locked(*jobs)))
    assert row.role == Role.PRIMARY
    assert row.equivalence
    assert row.equivalence.margin == 0.5, "the study's, in points"
    assert replicated(report, Claim(study=locked(*jobs[1:]))).role == Role.EXPLORATORY


def test_it_stands_in_every_product(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, truth = study(tmp_path / "runs", 6)
    write(report, tmp_path, differences(report), claim=Claim(margin=0.5))
    text = (tmp_path / "report.md").read_text()
    assert "### Over replicates" in text
    assert "| crossed bootstrap | equivalent |" in text
    assert "Over replicates" in (tmp_path / "report.html").read_text()
    with (tmp_path / "replicates.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["quantity"] == AVERAGE]
    assert [row["against"] for row in rows] == ["ties omega=null", "base", "base"]
    assert float(rows[0]["difference"]) == pytest.approx(truth.mean())
    runs = str(tmp_path / "runs")
    assert main([runs, "--out", str(tmp_path / "again"), "--margin", "50"]) == 0
    shown = capsys.readouterr().out
    assert "over replicates, against the plain merge" in shown
    assert "equivalent" in shown
    assert main([runs, "--margin", "0"]) == 1
    assert capsys.readouterr().err == "error: --margin 0: must be above 0, in points\n"
