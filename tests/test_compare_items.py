"""Runs against their baselines, on items written by hand: what is tested, paired and doubted."""

import re
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from item_records import accuracies, write

from aim_exp.evaluate.tasks.paper.ifeval import mean_of_four
from aim_exp.report.__main__ import main
from aim_exp.report.compare.comparability import doubts
from aim_exp.report.compare.comparison import Difference, Verdict, compare_runs
from aim_exp.report.compare.halves import choices
from aim_exp.report.methods_paragraph import methods_paragraph
from aim_exp.report.results import collect
from aim_exp.statistics import PairedTest, mcnemar


def only_row(directory: Path):
    (row,) = compare_runs(collect(directory)).rows
    return row


def test_a_claim_that_holds_and_one_that_does_not(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.55), 0.55)
    write(tmp_path / "2", 0.6, accuracies(0.9), 0.9)
    comparison = compare_runs(collect(tmp_path))
    assert [row.average.verdict for row in comparison.rows] == [Verdict.NOISE, Verdict.ABOVE]
    weak, strong = map(comparison.sentence, comparison.rows)
    assert re.fullmatch(
        r"ties omega=0.4 is 5.0 points above its plain merge; "
        r"95 % interval 0.0 to \+12.5: not told from noise",
        weak,
    )
    assert strong.endswith(": holds")
    assert comparison.summary() == "average above in 1, not told from noise in 1, of 2"


def test_one_that_would_hold_alone_says_among_how_many_it_does_not(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    for number in range(1, 8):
        right = [*accuracies(0.5)[:20], *np.roll(accuracies(0.3, 20), number)]
        write(tmp_path / str(number), number / 10, right, 0.65)
    comparison = compare_runs(collect(tmp_path))
    assert {row.average.test.p < 0.05 for row in comparison.rows} == {True}
    assert comparison.sentence(comparison.rows[0]).endswith(
        "not told from noise among 7 comparisons"
    )


def instructions(seed: int) -> list[dict[str, object]]:
    """IFEval's four metrics per prompt; how many instructions a prompt has is the same for all."""
    numbers = np.random.default_rng(0).integers(1, 4, 30)
    rng = np.random.default_rng(seed)
    return [
        {
            "prompt_level_strict_acc": bool(rng.random() < 0.4),
            "prompt_level_loose_acc": bool(rng.random() < 0.5),
            "inst_level_strict_acc": (rng.random(number) < 0.5).tolist(),
            "inst_level_loose_acc": (rng.random(number) < 0.6).tolist(),
        }
        for number in numbers
    ]


def test_the_mean_of_ifevals_four_metrics_is_bootstrapped(tmp_path):
    for number, omega in enumerate((None, 0.4)):
        items = instructions(number)
        write(tmp_path / str(number), omega, items, mean_of_four(items))
    row = only_row(tmp_path)
    test = row.scores["x"].test
    assert test.low < row.scores["x"].value < test.high
    own = row.average.test  # one benchmark is its own average
    assert (own.low, own.high, own.p) == pytest.approx((test.low, test.high, test.p), abs=0.02)
    assert choices(collect(tmp_path))[0].candidates == 2


@pytest.mark.parametrize("weighted", [True, False], ids=["by size", "equal"])
def test_groups_of_tasks_count_as_the_harness_counted_them(weighted, tmp_path):
    tasks = [{"u": accuracies(u, 30), "v": accuracies(v, 10)} for u, v in ((0.5, 0.5), (0.6, 0.9))]
    for number, omega in enumerate((None, 0.4)):
        means = {name: fmean(items) for name, items in tasks[number].items()}
        score = 0.75 * means["u"] + 0.25 * means["v"] if weighted else fmean(means.values())
        write(tmp_path / str(number), omega, tasks[number], score)
    test = only_row(tmp_path).scores["x"].test
    assert test.difference == pytest.approx(0.175 if weighted else 0.25)
    pooled = mcnemar(*(task["u"] + task["v"] for task in tasks))
    assert (test == pooled) is weighted


def test_a_score_that_is_no_mean_of_its_items_is_left_out_and_says_so(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.123)
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6)
    comparison = compare_runs(collect(tmp_path))
    (row,) = comparison.rows
    assert row.average.value == pytest.approx(0.477)
    assert row.average.verdict == Verdict.UNTESTED
    assert comparison.omissions() == ["not tested: the score is no mean over items (x)"]


@pytest.mark.parametrize("gone", ["merged", "base"])
def test_when_the_cache_is_gone_one_line_says_so(gone, tmp_path):
    write(tmp_path / "0", None, accuracies(0.5), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.9), 0.9)
    (tmp_path / "1" / f"{gone}.jsonl").unlink()
    comparison = compare_runs(collect(tmp_path))
    what = "x" if gone == "merged" else "hypervolume gain"
    assert comparison.omissions() == [
        f"not tested: the results by item are no longer in the cache ({what})"
    ]
    (row,) = comparison.rows
    assert row.gain.verdict == Verdict.UNTESTED
    assert (row.average.verdict == Verdict.UNTESTED) is (gone == "merged")
    assert main([str(tmp_path)]) == 0


def test_other_items_are_not_paired(tmp_path):
    write(tmp_path / "0", None, accuracies(0.5, 40), 0.5)
    write(tmp_path / "1", 0.4, accuracies(0.5, 20), 0.5)
    assert compare_runs(collect(tmp_path)).omissions() == ["not tested: not the same items (x)"]


# Doubts


def test_a_claim_needs_the_interval_too():
    def verdict(low: float, high: float) -> Verdict:
        return Difference("x", 0.2, PairedTest(0.2, low, high, 1e-4), adjusted_p=1e-3).verdict

    assert verdict(0.1, 0.3) == Verdict.ABOVE
    assert verdict(0.0, 0.3) == verdict(-0.1, 0.3) == Verdict.NOISE
    assert verdict(0.0004, 0.3) == Verdict.NOISE, "0.0, as printed"


def protocol(**changed):
    told = {"limit": None, "num_fewshot": 0, "items": "digest", "lm_eval": "0.4"}
    return {"x": {"task": "t", "metric": "m,flexible", "protocol": {**told, **changed}}}


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({}, None),
        ({"suite": "other"}, "suites differ: s, other: they ask in other ways"),
        ({"benchmarks": protocol(limit=10)}, "limit differs: null, 10 (in every benchmark)"),
        ({"benchmarks": protocol(num_fewshot=5)}, "num_fewshot differs: 0, 5"),
        ({"benchmarks": protocol(items="other")}, "the items differ (in every benchmark)"),
        ({"versions": {"torch": "3", "lm-eval": "0.4"}}, "torch differs: 2, 3: versions can"),
        ({"population_scores": {"base": {"x": 0.35}, "a": {"x": 0.5}}},
         "base on x scored 30.0 in 0 and 35.0 in 1, the same weights asked the same"),
        ({"scores": {"x": 0.5}}, "2 different models score exactly the same on every benchmark: "
         "0 (ties omega=null), 1 (ties omega=0.4)"),
    ],
    ids=["none", "suite", "limit", "shots", "items", "version", "population", "same scores"],
)  # fmt: skip
def test_what_forbids_to_compare_is_named(changed, doubt, tmp_path):
    members = {"base": {"x": 0.3}, "a": {"x": 0.4}}
    same = {"benchmarks": protocol(), "population_scores": members}
    keys = {"weights": {"merged": "one", "base": "b", "a": "a"}}
    write(tmp_path / "0", None, accuracies(0.5), 0.5, keys=keys, **same)
    other = {"weights": {"merged": "two", "base": "b", "a": "a"}}
    write(tmp_path / "1", 0.4, accuracies(0.6), 0.6, keys=other, **{**same, **changed})
    found = doubts(collect(tmp_path))
    if "population_scores" in changed:
        found = [line for line in found if "asked the same" in line]
    assert len(found) == (doubt is not None)
    assert doubt is None or found[0].startswith(doubt)


# Words


def test_licences_stand_in_the_paragraph_where_the_cards_are(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "README.md").write_text("---\nlicense: other\nlicense_name: llama2\n---\n# Card\n")
    population = {"name": "p", "merged": ["a"], "base": str(model), "experts": {"a": "gone"},
                  "models": {"base": "hub:org/base@12ab", "a": "sha256:34"}}  # fmt: skip
    write(tmp_path / "0", None, accuracies(0.5), 0.5, population=population)
    text = methods_paragraph(collect(tmp_path / "0"))
    assert "base (org/base@12ab, licence llama2) and a" in text
    assert "AIM was not applied." in text
    assert partial(methods_paragraph, latex=True)(collect(tmp_path / "0")).count("@12ab") == 1
