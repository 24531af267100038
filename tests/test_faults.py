"""The beginner's faults that a report warns of."""

from pathlib import Path

import pytest
from records import accuracies, record, write_all
from test_report_items import rewrite

from aim_exp.report.differences import differences
from aim_exp.report.load import load
from aim_exp.report.notes import doubts
from aim_exp.report.rows import make_report
from aim_exp.report.tables.differences import detectable_by, difference_table
from aim_exp.statistics import smallest_detectable

ONE = "benchmarks.tasks={x: {task: t, metric: 'm,none'}}"
GOOD = {"base": [accuracies(0.3, 80)], "a": [accuracies(0.6, 80, 1)]}
CHOICES = [{"text": t, "loglikelihood": -1.0, "greedy": False} for t in "abcd"]


def faults_of(directory: Path, members=GOOD, share: float = 0.7, **more) -> list[str]:
    scores = [accuracies(share, 80, 5)]
    write_all(directory, record(ONE, "omega=null", members=members, scores=scores, **more))
    return doubts(make_report(load(directory)))


def test_nothing_is_wrong(tmp_path: Path) -> None:
    assert faults_of(tmp_path, specialty={"a": ("x",)}) == []


def test_an_expert_no_better_than_base(tmp_path: Path) -> None:
    members = {"base": [accuracies(0.6, 80)], "a": [accuracies(0.5, 80, 1)]}
    (line,) = faults_of(tmp_path, members, specialty={"a": ("x",)})
    assert line.startswith("a scores 50.0 on x, its own specialty, and base 60.0: ")


def test_a_model_at_zero(tmp_path: Path) -> None:
    (line,) = faults_of(tmp_path, share=0.0)
    assert line == "at zero on x: ties omega=null; differences there say nothing"


def test_a_benchmark_without_volume(tmp_path: Path) -> None:
    nothing = [accuracies(0.0, 80)]
    lines = faults_of(tmp_path, {"base": nothing, "a": nothing}, share=0.0)
    assert (
        "all models stand at the reference point (0.0) on x: every hypervolume gain is 0; set "
        "benchmarks.tasks.x.objective=false to leave it out"
    ) in lines


@pytest.mark.parametrize(("share", "low"), [(0.275, True), (0.5, False)])
def test_a_model_at_chance(share: float, low: bool, tmp_path: Path) -> None:
    members = {"base": [accuracies(0.5, 80)], "a": [accuracies(0.6, 80, 1)]}
    faults_of(tmp_path, members, share)
    for file in tmp_path.rglob("*.jsonl.gz"):
        rewrite(file, choices=CHOICES)
    lines = doubts(make_report(load(tmp_path)))
    assert any("at chance (25.0) on x: ties omega=null;" in line for line in lines) is low


def test_the_likelihood_of_one_text_is_no_choice(tmp_path: Path) -> None:
    faults_of(tmp_path, share=0.5)
    for file in tmp_path.rglob("*.jsonl.gz"):
        rewrite(file, choices=CHOICES[:1])
    assert not any("chance" in line for line in doubts(make_report(load(tmp_path))))


def test_models_that_answer_alike(tmp_path: Path) -> None:
    same = accuracies(0.3, 80)
    lines = faults_of(tmp_path, {"base": [same], "a": [same]})
    assert any(line.startswith("base, a answer every item alike") for line in lines)


def test_the_least_difference_that_shows_stands_in_the_table(tmp_path: Path) -> None:
    faults_of(tmp_path, share=0.7)
    (against_base,) = differences(make_report(load(tmp_path)))
    table = difference_table(against_base, ["x"])
    (contrast,) = against_base.contrasts
    last = table.rows[-1].cells
    assert last[1].text == "least that shows (80 % power)"
    test = contrast.differences["x"].test
    assert test
    assert float(last[-1].text) == pytest.approx(100 * detectable_by(test.low, test.high), abs=0.05)
    assert detectable_by(-1.96 / 9, 1.96 / 9) == pytest.approx(
        smallest_detectable(10.0, 8100), rel=2e-3
    )
