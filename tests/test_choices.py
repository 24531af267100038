"""What `select` chooses of the settings that were tried, on items written by hand."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd
import pytest
from records import ITEMS, record, write_all

from aim_exp.report import write
from aim_exp.report.choices import Choices
from aim_exp.report.load import load
from aim_exp.report.rows import make_report
from aim_exp.report.tables.scores import CHOSEN, choice_table
from aim_exp.store.run_record import RunRecord

ONE = "benchmarks.tasks={x: {task: t, metric: 'm,flexible'}}"
N = 40


def right(share: float) -> list[float]:
    return [float(number < round(share * N)) for number in range(N)]


IDS = [("aim_tiny_x", number, json.dumps(f"answer {number}")) for number in range(N)]
FIRST = [hashlib.sha256(repr(each).encode()).digest()[0] % 2 == 0 for each in IDS]
"""The split, by a hash of each item: here computed by hand."""
LUCKY = [float(first) for first in FIRST]
"""All right where the choice is made, all wrong where it is reported."""
STEADY = [1.0 if number % 10 else 0.0 for number in range(N)]


def run(answers: Sequence[float], *overrides: str) -> RunRecord:
    members = {"base": [right(0.3)], "a": [right(0.5)]}
    return record(ONE, *overrides, scores=[answers], members=members)


def chosen(directory: Path, *records: RunRecord) -> Choices:
    return make_report(load(write_all(directory, *records))).choices


def on_half(answers: Sequence[float], *, first: bool) -> float:
    return fmean(own for own, half in zip(answers, FIRST, strict=True) if half == first)


def test_half_of_the_items_choose_and_the_others_report(tmp_path: Path) -> None:
    assert 10 < sum(FIRST) < 30
    runs = [run(right(0.4), "omega=null"), run(LUCKY, "omega=0.4"), run(STEADY, "omega=0.6"),
            run(right(0.3), "method=linear")]  # fmt: skip
    choice, alone = chosen(tmp_path, *runs).made
    assert (choice.name, choice.candidates, choice.on) == ("ties", 3, "half of the items")
    assert choice.best_on_all.label == "ties omega=0.6"
    assert [row.label for row in choice.chosen] == ["ties omega=0.4"]
    assert choice.average_on_all == pytest.approx(fmean(STEADY))
    assert (choice.average_when_chosen, choice.average_reported) == (1.0, 0.0)
    # Nothing to choose, but beside the others it is reported on the same items.
    assert (alone.name, alone.candidates) == ("linear", 1)
    assert alone.average_reported == pytest.approx(on_half(right(0.3), first=False))
    (tmp_path / "1" / "items" / "x.jsonl.gz").unlink()
    assert [each.candidates for each in make_report(load(tmp_path)).choices.made] == [2, 1]


def test_no_relaxation_is_a_candidate_where_omega_is_chosen(tmp_path: Path) -> None:
    """Also of a control; not where omega is none of what is chosen."""
    sweep = ("omega=null",), ("omega=0.4",), ("omega=0.4", "aim.scaling=uniform")
    answers = right(0.9), right(0.5), right(0.6)
    for of, names in (
        ("[omega, method.*]", ["ties scaling=identity", "ties scaling=uniform"]),
        ("['*']", ["all methods"]),
        ("[method.*]", []),
    ):
        runs = [run(own, *o, f"select.of={of}") for own, o in zip(answers, sweep, strict=True)]
        made = chosen(tmp_path / str(len(names)), *runs).made
        assert [choice.name for choice in made] == names
        for choice in made:
            labels = [row.settings["omega"] for row in choice.chosen]
            assert labels == ["null"]
    methods = [run(own, f"method={method}", "omega=null", "select.of=['*']")
               for own, method in ((LUCKY, "ties"), (STEADY, "linear"))]  # fmt: skip
    (choice,) = chosen(tmp_path / "methods", *methods).made
    assert (choice.name, choice.settings, choice.average_reported) == (
        "all methods",
        ("method",),
        0,
    )
    wider = [run(right(0.5), f"omega={omega}", f"method.density={density}", "select.of=[method.*]")
             for omega in ("null", "0.4") for density in (0.1, 0.2)]  # fmt: skip
    made = chosen(tmp_path / "wider", *wider).made
    assert [(c.name, c.candidates) for c in made] == [("ties omega=null", 2), ("ties omega=0.4", 2)]


def test_a_budget_is_a_draw_that_knows_no_score(tmp_path: Path) -> None:
    """The plain merge is always in it, and other scores draw the same."""
    omegas = ("null", "0.2", "0.4", "0.6", "0.8")
    drawn = []
    for number, best in enumerate(omegas):
        runs = [
            run(right(0.9 if omega == best else 0.4), f"omega={omega}", "select.budget=2")
            for omega in omegas
        ]
        (choice,) = chosen(tmp_path / str(number), *runs).made
        assert (choice.candidates, choice.available) == (2, 5)
        if choice.average_reported > 0.7:
            drawn += [row.settings["omega"] for row in choice.chosen]
    assert len(drawn) == 2
    assert drawn[0] == "null"


def write_populations(
    directory: Path, *populations: Sequence[Sequence[float]], own_items: bool
) -> Choices:
    """By population the answers at lambda 1, 2, ...."""
    for number, answers in enumerate(populations):
        ITEMS.clear()
        seeds = [f"population.seed={number}", "select.on=populations", "omega=null"]
        seeds += [f"benchmarks.items_seed={number}"] * own_items
        runs = [run(own, *seeds, f"method.scale={scale}") for scale, own in enumerate(answers, 1)]
        for lines in ITEMS.values() if own_items else ():
            for line in lines:
                line["target"] = f"of {number}: {line['target']}"
        write_all(directory / str(number), *runs)
    return make_report(load(directory)).choices


def test_other_populations_choose_where_items_are_their_own(tmp_path: Path) -> None:
    """All items count: lambda 1 is best in the last population, which the two others choose for."""
    low, middle, high = right(0.2), right(0.5), right(0.8)
    sweep = ((low, high), (middle, high), (high, low))
    (choice,) = write_populations(tmp_path, *sweep, own_items=True).made
    assert choice.on == "the other 2 populations"
    # On 1 and 2: .5 + .8 against .8 + .2; on 0 and 2: 1 both, the first; on 0 and 1: lambda 2.
    assert [row.settings["method.scale"] for row in choice.chosen] == ["1", "1", "2"]
    assert choice.reported == pytest.approx((0.2, 0.5, 0.2))
    assert choice.average_when_chosen == pytest.approx(fmean([0.65, 0.5, 0.8]))
    assert choice.deviation == pytest.approx(stdev([0.2, 0.5, 0.2]))


def test_other_populations_choose_on_half_of_the_items_that_they_share(tmp_path: Path) -> None:
    """No item that is reported on had a say, in whatever population."""
    second = [1.0 - each for each in LUCKY]
    sweep = ((LUCKY, second), (LUCKY, second))
    (choice,) = write_populations(tmp_path, *sweep, own_items=False).made
    assert choice.on == "half of the items of the other population"
    assert [row.settings["method.scale"] for row in choice.chosen] == ["1", "1"]
    assert (choice.average_when_chosen, choice.reported) == (1.0, (0.0, 0.0))


def test_one_population_chooses_nothing_and_the_report_says_so(tmp_path: Path) -> None:
    made = write_populations(tmp_path, (LUCKY, STEADY), own_items=False)
    assert (made.made, made.lacking) == ((), ("ties",))
    report = make_report(load(tmp_path))
    write(report, tmp_path, ())
    assert "select.on=populations` needs two or more" in (tmp_path / "report.md").read_text()


def test_seeds_are_averaged_and_their_spread_shown(tmp_path: Path) -> None:
    """One number for a random method, over its masks."""
    masks = [(1, right(0.5), right(0.9)), (2, right(0.7), right(0.3))]
    runs = [
        run(own, "method=dare_ties", "omega=null", f"seed={seed}", f"method.density={density}")
        for seed, *answers in masks
        for density, own in zip((0.2, 0.5), answers, strict=True)
    ]
    (choice,) = chosen(tmp_path, *runs).made
    (row,) = choice.chosen
    place = ("0.2", "0.5").index(row.settings["method.density"])
    own = [on_half(answers[place], first=False) for _, *answers in masks]
    assert choice.reported == pytest.approx(own)
    table = choice_table(make_report(load(tmp_path)))
    assert table
    assert table.rows[0].cells[3].margin == pytest.approx(stdev(own))
    assert "standard deviation over draws" in table.margin


def test_what_was_chosen_is_marked_everywhere(tmp_path: Path) -> None:
    runs = [run(right(0.4), "omega=null"), run(LUCKY, "omega=0.4"), run(STEADY, "omega=0.6")]
    write_all(tmp_path, *runs)
    report = make_report(load(tmp_path))
    write(report, tmp_path, ())
    page, text = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    for shown in (page, text):
        assert f"{CHOSEN}: chosen by" in shown
        assert "What was chosen" in shown
    (line,) = (line for line in text.splitlines() if line.startswith(f"| 1 {CHOSEN}"))
    assert "0.4" in line
    tables = tmp_path / "tables"
    assert r"\label{tab:chosen-1}" in (tables / "chosen.tex").read_text()
    (row,) = pd.read_csv(tables / "chosen.csv").to_dict("records")
    assert (row["chosen"], row["reported"], row["there"]) == ("omega=0.4", 0.0, 1.0)
    assert pd.read_csv(tmp_path / "results.csv").chosen.tolist() == [False, True, False]
