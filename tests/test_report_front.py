"""How sure a front is: beside the star, and what noise alone gains."""

import re
from pathlib import Path

import numpy as np
import pytest
from records import accuracies, printed, record, write_all

from aim_exp.report.context import make_context
from aim_exp.report.differences import differences
from aim_exp.report.front import front_probability, gain_by_noise
from aim_exp.report.load import load
from aim_exp.report.notes import notes
from aim_exp.report.rows import Report, make_report
from aim_exp.report.tables.scores import standings
from aim_exp.report.tables.terminal import print_table
from aim_exp.report.text import render
from aim_exp.statistics import Stratum, noise_gain, nondominated_probability

TWO = "benchmarks.tasks={x: {task: t, metric: 'm,none'}, y: {task: u, metric: 'm,none'}}"
MEMBERS = {
    "base": [accuracies(0.5, 80), accuracies(0.3, 80, 1)],
    "a": [accuracies(0.3, 80, 2), accuracies(0.5, 80, 3)],
}
PLAIN = [accuracies(0.45, 80, 4), accuracies(0.45, 80, 5)]
RELAXED = [accuracies(0.2, 80, 6), accuracies(0.2, 80, 7)]


def report(directory: Path) -> Report:
    runs = [
        record(TWO, f"omega={omega}", members=MEMBERS, scores=scores)
        for omega, scores in (("null", PLAIN), ("0.4", RELAXED))
    ]
    return make_report(load(write_all(directory, *runs)))


def strata(*models: list[list[int]]) -> list[list[Stratum]]:
    return [
        [Stratum(np.stack(each, axis=1)[:, :, None].astype(float), np.ones((80, 1)))]
        for each in zip(*map(np.array, models), strict=True)
    ]


def test_the_probability_stands_beside_the_star(tmp_path: Path) -> None:
    made = report(tmp_path)
    (group,) = made.groups
    expected = nondominated_probability(strata(*MEMBERS.values(), PLAIN, RELAXED))
    probabilities = front_probability(group)
    rows = (*group.members, *group.merges)
    assert [probabilities[row.key] for row in rows] == pytest.approx(expected)
    text = render("report.md", context=make_context(made, differences(made)))
    (plain,) = [row for row in group.merges if not row.relaxed]
    assert f"★ {probabilities[plain.key]:.2f}" in text
    assert "beside ★, how often it would be with other items of the same kind" in text.lower()


def test_where_there_is_no_room_nothing_explains_it(tmp_path: Path) -> None:
    made = report(tmp_path)
    for width, there in ((200, True), (52, False)):
        shown = printed(lambda to: print_table(to, standings(made, made.groups[0])), width)
        assert ("beside ★" in shown) is there
        assert bool(re.search(r"★ \d", shown)) is there


def test_the_gain_of_noise_stands_in_the_notes(tmp_path: Path) -> None:
    made = report(tmp_path)
    expected = noise_gain(strata(*MEMBERS.values()))
    noise = gain_by_noise(made.groups[0])
    assert noise == expected
    line = f"would have a hypervolume gain of {expected.mean:.3f} by the luck of its items"
    assert any(line in note for note in notes(made))


def test_without_items_there_is_neither(tmp_path: Path) -> None:
    report(tmp_path)
    for file in tmp_path.rglob("*.jsonl.gz"):
        file.unlink()
    (group,) = make_report(load(tmp_path)).groups
    assert front_probability(group) == {}
    assert gain_by_noise(group) is None


def test_what_is_no_objective_may_lack_items(tmp_path: Path) -> None:
    """The average is over the objectives, and tested if they are at hand."""
    beside = TWO.replace("task: u,", "task: u, objective: false,")
    runs = [
        record(beside, f"omega={omega}", members=MEMBERS, scores=scores)
        for omega, scores in (("null", PLAIN), ("0.4", RELAXED))
    ]
    write_all(tmp_path, *runs)
    for file in tmp_path.rglob("items/y.jsonl.gz"):
        file.unlink()
    against_plain, _ = differences(make_report(load(tmp_path)))
    (contrast,) = against_plain.contrasts
    assert contrast.average.test is not None
    assert contrast.reasons == {"the results by item are gone": ("y",)}
