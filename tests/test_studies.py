"""What competes with what: seeds are taken together, other protocols have tables of their own."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pages import page_of
from records import BENCHMARKS, POPULATION, drawn, failed, printed, record, shifted, write_all

from aim_exp.report import refresh, show_sweep
from aim_exp.report.compare.comparability import doubts
from aim_exp.report.plots import front, series
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import collect
from aim_exp.report.studies import studies
from aim_exp.report.summary import study_words
from aim_exp.report.tables import score_tables
from aim_exp.store.records import RunRecord


def asked(limit: int | None, made: RunRecord) -> RunRecord:
    protocol = {"limit": limit, "lm_eval": "0.4", "items": f"digest of {limit}"}
    return replace(made, benchmarks={name: {"protocol": protocol} for name in BENCHMARKS})


@pytest.fixture
def protocols(tmp_path: Path) -> Path:
    """The same merges on 20 items, where all score more, and on all of them; one fails."""
    return write_all(
        tmp_path,
        asked(20, record("ties", None, shifted(0.1))),
        asked(20, record("ties", 0.4, shifted(0.2))),
        asked(None, record("ties", None, shifted(0.02))),
        asked(None, record("ties", 0.4)),
        failed(),
    )


def lucky_seed() -> list[RunRecord]:
    """DARE with three seeds, of which one is lucky; TIES gives one model for two of them."""
    return [
        *(drawn(f"d{n}", record("dare_ties", 0.4, shifted(x)), n)
          for n, x in enumerate((-0.1, 0.05, -0.1))),
        drawn("t", record("ties", 0.4), 0),
        drawn("t", record("ties", 0.4), 1),
    ]  # fmt: skip


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    return write_all(tmp_path, *lucky_seed())


def test_protocols_are_ranked_apart_everywhere(protocols: Path) -> None:
    few, whole = studies(collect(protocols))
    assert (few.shared, whole.shared) == ({"limit": "20"}, {"limit": "null"})
    assert [len(study.repeats) for study in (few, whole)] == [2, 2]
    refresh(protocols)
    titles = ["[1] limit=20 (2 jobs: 0, 1)", "[2] limit=null (2 jobs: 2, 3)"]
    text = printed(partial(show_sweep, protocols))
    assert [text.count(title) for title in titles] == [1, 1]
    first, second = text.split(titles[1])
    assert re.findall(r"^(\d) +ties", first, re.MULTILINE) == ["0", "1"]
    assert re.findall(r"^(\d) +ties", second, re.MULTILINE) == ["2", "3", "4"]
    assert len(re.findall(r"^ +base +★?", text, re.MULTILINE)) == 2

    board = (protocols / "report.md").read_text().split("## Leaderboard")[1].split("\n## ")[0]
    assert re.findall(r"^### (.*)", board, re.MULTILINE) == titles
    rows = re.findall(r"^\| (\d) \| ties \|.*", board, re.MULTILINE)
    assert rows == ["1", "0", "2", "3"], "the best of each first"
    best = [line.count("**") // 2 for line in board.splitlines() if "| ties |" in line]
    assert best == [8, 0, 8, 0]

    page = page_of(protocols)
    assert [title in page.text for title in titles] == [True, True]
    assert page.text.count("best average") == 2
    assert page.data["studies"] == ["[1] limit=20", "[2] limit=null"]
    assert len(page.named("select", name="study")) == 3
    assert {curve["study"] for curve in page.data["curves"]} == {0, 1}
    captions = [table.caption for table in score_tables(collect(protocols))]
    assert ["(limit=20)" in captions[0], "(limit=null)" in captions[1]] == [True, True]


def test_no_model_of_one_protocol_is_on_the_front_of_the_other(protocols: Path) -> None:
    plane = front(collect(protocols))
    assert plane
    assert [each.title for each in plane.planes] == ["[1] limit=20", "[2] limit=null"]
    for each in plane.planes:
        assert {point.name for point in each.members} == set(POPULATION)
        assert each.line
    for study in studies(collect(protocols)):
        relaxed = [study.on_front(each) for each in study.repeats]
        assert relaxed == ([False, True] if study.number == 1 else [True, False])


def test_a_version_of_the_harness_is_another_protocol(tmp_path: Path) -> None:
    made = asked(None, record("ties", None))
    newer = {name: {"protocol": {**about["protocol"], "lm_eval": "0.5"}}
             for name, about in made.benchmarks.items()}  # fmt: skip
    write_all(tmp_path, made, replace(made, omega=0.4, benchmarks=newer))
    found = studies(collect(tmp_path))
    assert [study.shared for study in found] == [{"lm_eval": "0.4"}, {"lm_eval": "0.5"}]


def test_what_was_only_observed_is_no_protocol(tmp_path: Path) -> None:
    """A record says how many shots a prompt had, since some version; the protocol is the same."""
    made = asked(None, record("ties", None))
    told = {name: {**about, "num_fewshot": 5} for name, about in made.benchmarks.items()}
    write_all(tmp_path, made, replace(made, omega=0.4, benchmarks=told))
    (study,) = studies(collect(tmp_path))
    assert len(study.repeats) == 2
    assert doubts(collect(tmp_path))[1:] == []


def test_every_one_of_several_studies_is_named(tmp_path: Path) -> None:
    """Also by an ingredient that another one has and it has not."""
    made = asked(None, record("ties", None))
    more = {name: {"protocol": {**about["protocol"], "chat_template": True}}
            for name, about in made.benchmarks.items()}  # fmt: skip
    write_all(tmp_path, made, replace(made, omega=0.4, benchmarks=more))
    found = studies(collect(tmp_path))
    assert [study.shared for study in found] == [{"chat_template": "–"}, {"chat_template": "true"}]
    assert list(study_words(collect(tmp_path))) == ["[1]", "[2]"]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_setting_may_be_called_like_a_column(seeds: int, tmp_path: Path) -> None:
    """A method of one's own may have any fields."""
    runs = [
        drawn(f"{seed} {n}", record("own", 0.4, shifted(seed / 10)), seed, method_settings={"n": n})
        for seed in range(seeds)
        for n in (7, 8)
    ]
    write_all(tmp_path, *runs, replace(failed(), method="own", method_settings={"n": 9}))
    refresh(tmp_path)
    lines = printed(partial(show_sweep, tmp_path)).splitlines()
    found = [re.match(r"[\d, ]+?  +own +0\.4 +(\d) +(\d?)", line) for line in lines]
    n = str(seeds) if seeds > 1 else ""
    assert [match.groups() for match in found if match] == [("7", n), ("8", n), ("9", "")]


def test_a_lucky_seed_does_not_lead(seeds: Path) -> None:
    """The best single run is a seed of DARE; its mean is behind TIES."""
    (study,) = studies(collect(seeds))
    assert [each.first.record.method for each in study.ranked] == ["ties", "dare_ties"]
    assert [(each.n, len(each.runs)) for each in study.ranked] == [(1, 2), (3, 3)]
    refresh(seeds)
    board = (seeds / "report.md").read_text().split("## Leaderboard")[1].split("\n## ")[0]
    ties, dare = re.findall(r"^\| \d.*", board, re.MULTILINE)
    assert ties.startswith("| 3, 4 | ties | 0.4 | 1 | ★ | **49.0** |"), "one model: no deviation"
    deviation = 100 * np.std([-0.1, 0.05, -0.1], ddof=1)
    assert dare.startswith(f"| 0, 1, 2 | dare_ties | 0.4 | 3 |  | 44.0 ±{deviation:.1f} |")
    assert "mean ± standard deviation over n seeds" in board
    assert "Standard error of one model over the items: up to 4.1 (a benchmark)" in board
    lines = printed(partial(show_sweep, seeds)).splitlines()
    assert [line.split("  ")[0] for line in lines if "0.4" in line] == ["0, 1, 2", "3, 4"]
    page = page_of(seeds)
    links = [a["href"] for a in page.named("a") if (a["href"] or "").startswith("#run-")]
    assert links[:5] == ["#run-3", "#run-4", "#run-0", "#run-1", "#run-2"]
    assert "2 of 2 merges" in page.text


def test_the_page_draws_what_the_figures_draw(seeds: Path) -> None:
    results = collect(seeds)
    data = page_of(seeds).data
    quantities = [AVERAGE, GAIN, *BENCHMARKS]
    assert data["quantities"] == quantities
    assert len(data["curves"]) == len(series(results)) == 2
    for curve, each in zip(data["curves"], series(results), strict=True):
        models = [data["models"][position] for position in curve["runs"]]
        for model, repeats in zip(models, each.runs, strict=True):
            for number, quantity in enumerate(quantities):
                unit = 1 if quantity == GAIN else 100
                spread = repeats.spread(quantity)
                assert spread
                assert spread.stderr
                assert model["values"][number] == pytest.approx(unit * spread.mean, abs=1e-4)
                assert model["errors"][number] == pytest.approx(unit * spread.stderr, abs=1e-4)
                if repeats.n > 1:
                    draws = [unit * value for value in repeats.values(quantity)]
                    assert model["draws"][number] == pytest.approx(draws, abs=1e-4)
    found = front(results, ("humaneval", "mmlu"))
    assert found
    (plane,) = found.planes
    merged = [model for model in data["models"] if model["role"] == "merged"]
    shown = [(model["values"][2], model["values"][6]) for model in merged]
    places = [(100 * point.x.value, 100 * point.y.value) for point in plane.merged]
    assert np.allclose(places, shown, atol=1e-4)
    assert [len(point.draws) for point in plane.merged] == [3, 0]
