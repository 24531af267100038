"""Seeds are averaged over where every model has the same ones, and tell runs apart where not."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from pages import page_of
from records import POPULATION, by_benchmark, failed, printed, record, shifted, write_all

from aim_exp.report import refresh, show_sweep
from aim_exp.report.notes import notes
from aim_exp.report.plots import series
from aim_exp.report.repeats import AVERAGE
from aim_exp.report.results import Results, collect
from aim_exp.report.studies import Study, studies
from aim_exp.report.tables import score_tables
from aim_exp.report.tables.formats import as_markdown
from aim_exp.store.records import RunRecord

GAINS = {0: 0.0, 1: -0.2, 2: -0.2}
"""What a population adds to the scores of all models: merges of the first score more."""


def run(
    method: str, omega: float | None, population: int = 0, seed: int = 0, **changed
) -> RunRecord:
    """Relaxing costs a point, a seed of DARE adds one; keys as the store gives them."""
    stochastic = method == "dare_ties" or changed.get("aim", {}).get("scaling") == "shuffled"
    gain = GAINS[population] - 0.01 * (omega is not None) + 0.01 * seed * stochastic
    made = record(method, omega, shifted(gain))
    aim = changed.get("aim", made.aim) if omega is not None else {}
    calibration = changed.get("calibration", {}) if omega is not None else {}
    mask = seed if stochastic else None
    merged = f"{method} {omega} {population} {mask} {aim} {calibration}"
    members = {name: f"{name} of {population}" for name in POPULATION}
    rows = {name: by_benchmark([x + GAINS[population] / 10 for x in row])
            for name, row in POPULATION.items()}  # fmt: skip
    return replace(
        made,
        seed=seed,
        stochastic=stochastic,
        population={**made.population, "seed": population},
        population_scores=rows,
        keys={"responses": {**members, "merged": merged}},
        **changed,
    )


def results(directory: Path, runs: Iterable[RunRecord]) -> Results:
    return collect(write_all(directory, *runs))


def numbers(study: Study) -> dict[str, int]:
    """n of every merge by its label."""
    return {study.label(each.first): each.n for each in study.repeats}


def changes(found: Results) -> list[float]:
    entries = (entry for table in score_tables(found) for entry in table.entries)
    return [entry.changes[AVERAGE] for entry in entries if entry.changes]


def gaps(found: Results) -> list[str]:
    return [note for note in notes(found) if "averaged over" in note]


def test_balanced_populations_are_averaged(tmp_path: Path) -> None:
    runs = [run("ties", omega, p) for p in range(3) for omega in (None, 0.4)]
    found = results(tmp_path, runs)
    (study,) = studies(found)
    assert (study.draws, study.gaps) == ({"population.seed": 3}, ())
    assert {each.n for each in (*study.members, *study.repeats)} == {3}
    assert gaps(found) == []
    refresh(tmp_path)
    for shown in (
        printed(partial(show_sweep, tmp_path)),
        (tmp_path / "report.md").read_text(),
        page_of(tmp_path).text,
    ):
        assert "standard deviation over n populations" in shown
        assert "n seeds" not in shown
    (table,) = score_tables(found)
    assert table.caption.count("over n populations.") == 1
    assert "mean of 3 populations" in page_of(tmp_path).text


@pytest.mark.parametrize("lost", ["joined", "failed"])
def test_a_change_is_never_between_other_populations(lost: str, tmp_path: Path) -> None:
    """Means would say that relaxing gains 13 points; on every population it costs one."""
    runs = [run("ties", None, p) for p in range(3)]
    runs += [run("ties", omega, 0) for omega in (0.4, 0.6)]
    if lost == "failed":
        runs += [replace(failed(), omega=omega) for omega in (0.4, 0.6) for _ in range(2)]
    found = results(tmp_path, runs)
    assert [study.shared for study in studies(found)] == [
        {"population.seed": str(p)} for p in range(3)
    ]
    assert [len(study.repeats) for study in studies(found)] == [3, 1, 1]
    assert all(member.n == 1 for study in studies(found) for member in study.members)
    assert changes(found) == pytest.approx([100 * (0.48 / 0.49 - 1)] * 2)
    note = "population.seed is not averaged over: ties omega=0.4 and ties omega=0.6 lack 1 and 2"
    assert gaps(found) == [note]
    assert len(series(found)) == 3
    refresh(tmp_path)
    assert note in " ".join(printed(partial(show_sweep, tmp_path)).split())
    assert note in (tmp_path / "report.md").read_text()
    assert note in page_of(tmp_path).text


def test_a_method_without_randomness_lacks_no_seed(tmp_path: Path) -> None:
    runs = [run("ties", omega, seed=0) for omega in (None, 0.4)]
    runs += [run("dare_ties", omega, seed=s) for s in range(3) for omega in (None, 0.4)]
    (study,) = studies(results(tmp_path, runs))
    assert study.draws == {"seed": 3}
    assert numbers(study) == {
        "ties omega=null": 1, "ties omega=0.4": 1,
        "dare_ties omega=null": 3, "dare_ties omega=0.4": 3,
    }  # fmt: skip


def test_unbalanced_masks_have_a_row_each(tmp_path: Path) -> None:
    runs = [run("ties", omega, seed=s) for s in range(2) for omega in (None, 0.4)]
    runs += [run("dare_ties", None, seed=s) for s in range(3)]
    runs += [run("dare_ties", 0.4, seed=s) for s in (1, 2)]
    found = results(tmp_path, runs)
    (study,) = studies(found)
    assert numbers(study) == {
        "ties omega=null": 1, "ties omega=0.4": 1,
        **{f"dare_ties omega=null seed={s}": 1 for s in range(3)},
        **{f"dare_ties omega=0.4 seed={s}": 1 for s in (1, 2)},
    }  # fmt: skip
    assert gaps(found) == ["seed is not averaged over: dare_ties omega=0.4 lacks 0"]
    expected = [0.48 / 0.49, 0.49 / 0.50, 0.50 / 0.51]
    assert changes(found) == pytest.approx([100 * (x - 1) for x in expected])
    refresh(tmp_path)
    assert "| 0, 2 | ties | null | – |" in (tmp_path / "report.md").read_text()
    assert "one `seed`" not in (tmp_path / "report.md").read_text()


def test_two_kinds_of_seeds_are_a_product(tmp_path: Path) -> None:
    """And a population without its masks is apart, where the masks are still averaged over."""
    every = list(product((None, 0.4), range(3), range(2)))
    runs = [run("dare_ties", omega, p, s) for omega, p, s in every]
    runs += [run("ties", omega, p) for omega in (None, 0.4) for p in range(3)]
    found = results(tmp_path / "whole", runs)
    (study,) = studies(found)
    assert study.draws == {"population.seed": 3, "seed": 2}
    assert sorted(numbers(study).values()) == [3, 3, 6, 6]
    (table,) = score_tables(found)
    assert "over n = 3 populations x 2 seeds; a model counts once for" in as_markdown([table])

    lost = [each for each in runs if (each.population["seed"], each.seed) != (2, 1)]
    found = results(tmp_path / "part", lost)
    assert [study.draws for study in studies(found)] == [{"seed": 2}, {"seed": 2}, {}]
    assert gaps(found) == [
        "population.seed is not averaged over: dare_ties omega=null and dare_ties omega=0.4 lack "
        "population.seed=2 with seed=1"
    ]


def test_three_masks_and_two_other_populations_are_not_five_draws(tmp_path: Path) -> None:
    cells = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)]
    found = results(tmp_path, [run("dare_ties", 0.4, p, s) for p, s in cells])
    assert [each.n for study in studies(found) for each in study.repeats] == [3, 1, 1]
    (note,) = gaps(found)
    assert note.startswith("population.seed is not averaged over: dare_ties omega=0.4 lacks")


def test_calibrations_are_drawn_for_runs_with_aim(tmp_path: Path) -> None:
    def drawn(omega: float | None, seed: int) -> RunRecord:
        return run("ties", omega, calibration={"name": "tiny", "seed": seed})

    whole = [drawn(None, 0), *(drawn(omega, s) for omega in (0.4, 0.6) for s in range(2))]
    (study,) = studies(results(tmp_path / "whole", whole))
    assert [each.n for each in study.repeats] == [1, 2, 2]
    (study,) = studies(results(tmp_path / "part", whole[:-1]))
    assert list(numbers(study)) == [
        "ties omega=null", "ties omega=0.4 calibration.seed=0",
        "ties omega=0.4 calibration.seed=1", "ties omega=0.6 calibration.seed=0",
    ]  # fmt: skip
    assert len(study.merges) == 1, "the plain merge is that of all"


def test_shuffled_runs_go_with_the_plain_merge_of_any_seed(tmp_path: Path) -> None:
    shuffled = [run("ties", 0.4, seed=s, aim={"scaling": "shuffled"}) for s in range(2)]
    runs = [run("ties", None), *shuffled, run("ties", 0.6, aim={"scaling": "shuffled"})]
    found = results(tmp_path, runs)
    (study,) = studies(found)
    (merge,) = study.merges
    assert (len(merge.relaxed), len(changes(found))) == (3, 3)


def test_base_is_of_the_populations_that_were_merged(tmp_path: Path) -> None:
    only_scored = replace(run("none", None, 2), scores=None, stderr=None, average=None)
    found = results(tmp_path, [run("ties", None, 0), run("ties", None, 1), only_scored])
    assert [len(study.merges) for study in studies(found)] == [1, 1, 0]
    assert gaps(found) == ["population.seed is not averaged over: ties omega=null lacks 2"]


def test_the_standard_errors_are_the_same_everywhere(tmp_path: Path) -> None:
    runs = [run("ties", omega, p) for p in range(2) for omega in (None, 0.4)]
    loud = {name: dict.fromkeys(row, 0.09) for name, row in by_member(runs[0]).items()}
    write_all(tmp_path, *(replace(each, population_stderr=loud) for each in runs))
    refresh(tmp_path)
    line = "of one model over the items: up to 9.0 (a benchmark), 3.7 (average)"
    assert line in printed(partial(show_sweep, tmp_path))
    report = (tmp_path / "report.md").read_text()
    assert (report.count(line), report.count("up to 4.1 (a benchmark)")) == (2, 0)


def by_member(made: RunRecord) -> dict[str, dict[str, float]]:
    return {name: dict(row) for name, row in (made.population_scores or {}).items()}


def test_the_page_counts_merges(tmp_path: Path) -> None:
    runs = [run("dare_ties", omega, seed=s) for s in range(3) for omega in (None, 0.4)]
    refresh(write_all(tmp_path, *runs))
    text = page_of(tmp_path).text
    assert "0 of 1" in text.split("above the plain merge")[1][:40]
    assert "of 2" in text.split("on the front")[1][:40]
