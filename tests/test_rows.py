"""Rows by what they rest on: the table of keys is the oracle; seeds are averaged where balanced."""

import re
from collections.abc import Iterable
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from built_runs import built
from pages import Page
from records import MERGED, POPULATION, failed, record, shifted, write_all
from test_keys import TABLE

from aim_exp.config.schema import register
from aim_exp.pareto import hypervolume_gain
from aim_exp.report.context import make_context
from aim_exp.report.csv_files import difference_rows
from aim_exp.report.differences import differences
from aim_exp.report.draws import LEVELS
from aim_exp.report.estimates import AVERAGE, GAIN
from aim_exp.report.html import render as page
from aim_exp.report.load import load
from aim_exp.report.rows import Group, Report, make_report
from aim_exp.report.text import render
from aim_exp.run.recipe import DRAWS as PLANNED_DRAWS
from aim_exp.run.recording import initial_record, planned_record
from aim_exp.store.run_record import RunRecord

DRAWN = {"population.seed=1", "calibration.seed=7", "repeat=1", "benchmarks.items_seed=1"}
"""Of the table, what draws the same anew."""
NO_KEY: dict[str, dict[str, Any]] = {
    "+benchmarks.tasks.tiny_math.reference_point=0.1": {},
    "+benchmarks.tasks.tiny_mmlu.objective=false": {},
    "benchmarks.reference_point=0.1": {},
    "benchmarks.tasks.tiny_math.metric=other": {},
    "specialty": {"specialty": {"code": ("math",)}},
    "members": {"members": {**POPULATION, "fourth": MERGED}},
}
"""What changes a shown number and no key."""


def report(directory: Path, records: Iterable[RunRecord]) -> Report:
    return make_report(load(write_all(directory, *records)))


def changed(override: str) -> RunRecord:
    arguments = NO_KEY.get(override, {})
    overrides = [override] if "=" in override else []
    return record(*overrides, **arguments)


@pytest.mark.parametrize("override", dict.fromkeys([*TABLE, *NO_KEY]))
def test_what_changes_a_number_gives_two_rows_and_nothing_else_does(
    override: str, tmp_path: Path
) -> None:
    made = report(tmp_path, [record(), changed(override)])
    rows = [row for row in made.merges if row.estimates]
    apart = override in NO_KEY or (bool(TABLE[override]) and override not in DRAWN)
    assert len(rows) == (2 if apart else 1)
    assert len({(row.label, group.title) for group in made.groups for row in group.merges}) == len(
        rows
    ), "no two are called alike"
    if override in DRAWN:
        assert rows[0].n == 2
    named = override.partition("=")[0].lstrip("+")
    unnamed = not apart or override == "specialty" or named in ("method", "omega")
    assert (made.varying == ("method", "omega")) is unnamed, "only what differs names them"


def test_every_table_shows_these_rows_and_no_others(tmp_path: Path) -> None:
    """The whole table of overrides as one sweep: leaderboards, page, differences.csv."""
    overrides = [o for o in dict.fromkeys([*TABLE, *NO_KEY]) if o not in DRAWN]
    made = report(tmp_path, [record(), *map(changed, overrides)])
    rows = [row for row in made.merges if row.estimates]
    apart = [o in NO_KEY or bool(TABLE[o]) for o in overrides]
    assert len(rows) == apart.count(True), "with the default; omega=null and omega=1 are one"
    assert sorted(row.titles for row in rows if len(row.jobs) == 1) == sorted(
        str(number)
        for number, (override, own) in enumerate(zip(overrides, apart, strict=True), 1)
        if own and override not in ("omega=null", "omega=1")
    )
    compared = differences(made)
    context = make_context(made, compared)
    board = render("report.md", context=context).split("## Leaderboard")[1].split("\n## ")[0]
    jobs = re.findall(r"^\| (\d[^|]*?) \|", board, re.MULTILINE)
    assert sorted(jobs) == sorted(row.titles for row in rows)
    shown = [row for row in Page(page(context)).data["rows"] if row["role"] == "merged"]
    assert len(shown) == len(rows)
    base = [row for row in difference_rows(compared) if row["against"].startswith("base ")]
    models = [row["model"] for row in base if row["quantity"] == AVERAGE]
    assert len(models) == len(set(models)) == len(rows)


@cache
def planned(cache_dir: Path, *overrides: str) -> RunRecord:
    register()
    return planned_record(initial_record({}, {}, (), ""), built(cache_dir, *overrides))


@pytest.mark.parametrize("override", [*TABLE, "method=dare_ties"])
def test_records_of_tests_have_the_keys_that_a_plan_has(
    override: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Equal where the plan's are equal, seeds apart and with them; so are the draws."""
    top = tmp_path_factory.getbasetemp()
    plans = [planned(top), planned(top, override)]
    made = [record(), record(override)]
    for name in ("weights", "responses", "undrawn"):
        for number in (0, -1):  # base, and the merge
            its, own = ([r.models[number].keys[name] for r in pair] for pair in (plans, made))
            assert (its[0] == its[1]) == (own[0] == own[1]), (name, number)
    assert plans[1].draws == made[1].draws


def test_the_seeds_of_a_record_are_those_of_the_plan() -> None:
    own = [seed for level in LEVELS for seed in level]
    assert own == [seed for level in PLANNED_DRAWS for seed in level]


def test_three_lengths_are_three_rows(tmp_path: Path) -> None:
    """They score differently, and no mean is taken of them."""
    runs = [record(f"evaluator.max_length={n}", "omega=null", scores=shifted(n / 1e4))
            for n in (45, 52, 256)]  # fmt: skip
    made = report(tmp_path, runs)
    assert [row.n for row in made.merges] == [1, 1, 1]
    assert [group.title for group in made.groups] == [f"max_length={n}" for n in (45, 52, 256)]
    assert made.varying == ("method", "omega", "evaluator.max_length")


def test_omega_one_is_the_plain_merge(tmp_path: Path) -> None:
    (row,) = report(tmp_path, [record("omega=1"), record("omega=null")]).merges
    assert (row.settings["omega"], row.omega, row.relaxed) == ("null", 1.0, False)
    assert row.titles == "0, 1"


def test_a_relaxed_row_knows_its_plain_one(tmp_path: Path) -> None:
    runs = [record(*each) for each in product(("method=ties", "method=linear"),
            ("omega=null", "omega=0.4", "omega=0.6"))]  # fmt: skip
    runs += [record("omega=0.4", "aim.scaling=uniform"), record("omega=0.4", "method.density=0.5")]
    (group,) = report(tmp_path, runs).groups
    plain = {row.label: group.row(row.plain).label for row in group.merges if row.plain}
    assert set(group.names) == {"method", "omega", "aim.scaling", "method.density"}
    assert len(plain) == 5
    assert all(own.split()[0] == its.split()[0] for own, its in plain.items())


# Seeds


GAINS = {0: 0.0, 1: -0.2, 2: -0.2}
"""What a population adds to the scores of all models: merges of the first score more."""


def run(method: str, omega: float | None, population: int = 0, seed: int = 0, *more: str) -> Any:
    """Relaxing costs a point, a seed of DARE adds one."""
    stochastic = method == "dare_ties" or "aim.scaling=shuffled" in more
    gain = GAINS[population] - 0.01 * (omega is not None) + 0.01 * seed * stochastic
    members = {name: [x + GAINS[population] / 10 for x in row] for name, row in POPULATION.items()}
    return record(
        f"method={method}", f"omega={'null' if omega is None else omega}",
        f"population.seed={population}", f"seed={seed}", *more,
        scores=shifted(gain), members=members,
    )  # fmt: skip


def numbers(group: Group) -> dict[str, int]:
    return {row.label: row.n for row in group.merges}


def test_balanced_populations_are_averaged(tmp_path: Path) -> None:
    runs = [run("ties", omega, p) for p in range(3) for omega in (None, 0.4)]
    (group,) = report(tmp_path, runs).groups
    assert (group.seeds, group.gaps, group.counted) == ({"population.seed": 3}, (), "n populations")
    assert {row.n for row in group.rows} == {3}
    plain = group.merges[0].estimates[AVERAGE]
    values = [fmean(shifted(GAINS[p])) for p in range(3)]
    assert plain.values == pytest.approx(values)
    assert (plain.mean, plain.deviation) == pytest.approx((fmean(values), stdev(values)))


@pytest.mark.parametrize("lost", ["joined", "failed"])
def test_a_change_is_never_between_other_populations(lost: str, tmp_path: Path) -> None:
    """Means would say that relaxing gains 13 points; on every population it costs one."""
    runs = [run("ties", None, p) for p in range(3)]
    runs += [run("ties", omega, 0) for omega in (0.4, 0.6)]
    if lost == "failed":
        runs += [failed("out of memory", f"omega={omega}") for omega in (0.4, 0.6)]
    made = report(tmp_path, runs)
    assert [group.title for group in made.groups] == [f"population.seed={p}" for p in range(3)]
    assert [len(group.merges) for group in made.groups] == [3, 1, 1]
    assert all(row.n == 1 for group in made.groups for row in group.rows)
    note = "population.seed is not averaged over: ties omega=0.4 and ties omega=0.6 lack 1 and 2"
    assert {gap for group in made.groups for gap in group.gaps} == {note}
    relaxed = [row for row in made.merges if row.relaxed]
    (group, *_) = made.groups
    for row in relaxed:
        plain = group.row(row.plain or "").estimates[AVERAGE].mean
        assert row.estimates[AVERAGE].mean - plain == pytest.approx(-0.01)


def test_a_method_without_randomness_lacks_no_seed(tmp_path: Path) -> None:
    runs = [run("ties", omega, seed=s) for s in range(2) for omega in (None, 0.4)]
    runs += [run("dare_ties", omega, seed=s) for s in range(3) for omega in (None, 0.4)]
    (group,) = report(tmp_path, runs).groups
    assert group.seeds == {"seed": 3}
    assert numbers(group) == {
        "ties omega=null": 1, "ties omega=0.4": 1,
        "dare_ties omega=null": 3, "dare_ties omega=0.4": 3,
    }  # fmt: skip


def test_unbalanced_masks_have_a_row_each(tmp_path: Path) -> None:
    runs = [run("ties", omega) for omega in (None, 0.4)]
    runs += [run("dare_ties", None, seed=s) for s in range(3)]
    runs += [run("dare_ties", 0.4, seed=s) for s in (1, 2)]
    (group,) = report(tmp_path, runs).groups
    assert numbers(group) == {
        "ties omega=null": 1, "ties omega=0.4": 1,
        **{f"dare_ties omega=null seed={s}": 1 for s in range(3)},
        **{f"dare_ties omega=0.4 seed={s}": 1 for s in (1, 2)},
    }  # fmt: skip
    assert group.gaps == ("seed is not averaged over: dare_ties omega=0.4 lacks 0",)
    plain = [group.row(row.plain).label for row in group.merges if row.plain]
    assert plain == ["ties omega=null", *[f"dare_ties omega=null seed={s}" for s in (1, 2)]]


def test_three_populations_by_two_masks_are_three(tmp_path: Path) -> None:
    every = list(product((None, 0.4), range(3), range(2)))
    runs = [run("dare_ties", omega, p, s) for omega, p, s in every]
    runs += [run("ties", omega, p) for omega in (None, 0.4) for p in range(3)]
    (group,) = report(tmp_path / "whole", runs).groups
    assert group.seeds == {"population.seed": 3, "seed": 2}
    assert group.counted == "n populations, each a mean over 2 seeds"
    assert set(numbers(group).values()) == {3}
    (dare,) = [row for row in group.merges if row.label == "dare_ties omega=null"]
    inner = [fmean(fmean(shifted(GAINS[p] + 0.01 * s)) for s in range(2)) for p in range(3)]
    assert dare.estimates[AVERAGE].values == pytest.approx(inner)
    assert dare.estimates[AVERAGE].deviation == pytest.approx(stdev(inner))

    lost = [
        made for made in runs if (made.draws["population.seed"], made.draws.get("seed")) != (2, 1)
    ]
    made = report(tmp_path / "part", lost)
    assert [group.seeds for group in made.groups] == [{"seed": 2}, {"seed": 2}, {}]
    assert {gap for group in made.groups for gap in group.gaps} == {
        "population.seed is not averaged over: dare_ties omega=null and dare_ties omega=0.4 lack "
        "population.seed=2 with seed=1"
    }


def test_three_masks_and_two_other_populations_are_not_five_draws(tmp_path: Path) -> None:
    cells = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]
    made = report(tmp_path, [run("dare_ties", 0.4, p, s) for p, s in cells])
    assert [row.n for row in made.merges] == [3, 1, 1]


def test_calibrations_are_drawn_for_relaxed_merges(tmp_path: Path) -> None:
    whole = [run("ties", None)]
    whole += [run("ties", o, 0, 0, f"calibration.seed={s}") for o in (0.4, 0.6) for s in range(2)]
    (group,) = report(tmp_path / "whole", whole).groups
    assert [row.n for row in group.merges] == [1, 2, 2]
    (group,) = report(tmp_path / "part", whole[:-1]).groups
    assert list(numbers(group)) == [
        "ties omega=null", "ties omega=0.4 calibration.seed=0",
        "ties omega=0.4 calibration.seed=1", "ties omega=0.6 calibration.seed=0",
    ]  # fmt: skip
    assert len({row.plain for row in group.merges if row.relaxed}) == 1


def test_other_calibrations_with_other_seeds_are_settings(tmp_path: Path) -> None:
    runs = [run("ties", 0.4), run("ties", 0.4, 0, 0, "calibration.seed=3", "aim.statistic=rms")]
    (group,) = report(tmp_path, runs).groups
    assert (group.gaps, group.seeds) == ((), {})
    assert len(group.merges) == 2


def test_repeats_are_the_innermost(tmp_path: Path) -> None:
    runs = [run("ties", None, p, 0, f"repeat={r}") for p in range(2) for r in range(3)]
    (group,) = report(tmp_path, runs).groups
    assert group.counted == "n populations, each a mean over 3 repeats"
    assert {row.n for row in group.rows} == {2}


def test_base_is_of_the_populations_that_were_merged(tmp_path: Path) -> None:
    runs = [run("ties", None, 0), run("ties", None, 1), run("none", None, 2)]
    made = report(tmp_path, runs)
    assert [len(group.merges) for group in made.groups] == [1, 1, 0]
    assert made.groups[0].gaps == ("population.seed is not averaged over: ties omega=null lacks 2",)


# Groups


def test_a_joint_model_is_scored_beside_every_population(tmp_path: Path) -> None:
    runs = [record("omega=null", f"population.seed={p}", references={"joint": MERGED})
            for p in range(2)]  # fmt: skip
    (group,) = report(tmp_path / "balanced", runs).groups
    assert [(row.label, row.n) for row in group.references] == [("joint", 1)]
    runs.append(record("omega=0.4", references={"joint": MERGED}))
    groups = report(tmp_path / "apart", runs).groups
    assert [len(group.references) for group in groups] == [1, 1]


def test_the_front_is_of_one_group(tmp_path: Path) -> None:
    runs = [record("omega=null", "benchmarks.limit=20", scores=shifted(0.1)),
            record("omega=0.4", "benchmarks.limit=20", scores=shifted(0.2)),
            record("omega=null"), record("omega=0.4", scores=shifted(-0.02))]  # fmt: skip
    few, whole = report(tmp_path, runs).groups
    assert (few.title, whole.title) == ("limit=20", "limit=null")
    assert [row.on_front for row in (*few.merges, *whole.merges)] == [False, True, True, False]
    assert [group.ranked[0].titles for group in (few, whole)] == ["1", "2"]


def test_a_version_of_the_harness_is_another_group(tmp_path: Path) -> None:
    groups = report(tmp_path, [record(), record(lm_eval="0.5")]).groups
    assert [list(group.shared.values()) for group in groups] == [["0.4.13"], ["0.5"]]


# Errors


def test_the_error_of_a_gain_is_that_of_scores_drawn_anew(tmp_path: Path) -> None:
    """Against an obvious simulation: a gain per draw, each by pymoo."""
    made = record()
    (row,) = report(tmp_path, [made]).merges
    estimate = row.estimates[GAIN]
    models = [*made.members, made.models[-1]]
    values = np.array([[s.value for s in model.scores.values()] for model in models])
    errors = np.array([[s.stderr for s in model.scores.values()] for model in models])
    rng = np.random.default_rng(7)
    resampled = np.clip(values + errors * rng.standard_normal((600, *values.shape)), 0, 1)
    slow = np.std([hypervolume_gain(each[-1], each[:-1]) for each in resampled], ddof=1)
    assert estimate.stderr == pytest.approx(slow, rel=0.15)
    assert estimate.mean == made.standing.hypervolume_gain


def test_the_error_of_an_average_is_that_of_its_benchmarks(tmp_path: Path) -> None:
    (row,) = report(tmp_path, [record()]).merges
    errors = [row.estimates[name].stderr or 0.0 for name in row.draws[0].model.scores]
    assert row.estimates[AVERAGE].stderr == pytest.approx(sum(e**2 for e in errors) ** 0.5 / 6)
