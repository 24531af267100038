"""The appendix: what the results rest on is counted once, and named as it was."""

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli
from records import record, write_all

from aim_exp.report.load import load
from aim_exp.report.methods import methods_paragraph
from aim_exp.report.rows import make_report
from aim_exp.store.run_record import RunRecord, StageRecord, read_record

HERE, THERE = "AMD EPYC, 2 processors, 24 GiB of memory", "Xeon, 8 processors, 64 GiB, 1 x H100"


def made(name: str, seconds: float | None, machine: str = HERE) -> StageRecord:
    return StageRecord(
        name=name,
        needs=(),
        keys=(f"{name}/key",),
        seconds=seconds,
        machine=machine if seconds else None,
    )


def paragraph(directory: Path, *records: RunRecord, latex: bool = False) -> str:
    return methods_paragraph(make_report(load(write_all(directory, *records))), latex=latex)


def test_settings_are_told_in_sentences(tmp_path):
    text = paragraph(
        tmp_path,
        record("omega=null"),
        record("omega=0.4", "method.density=0.5", calibration={"n_texts": 60, "n_tokens": 5120}),
        record("method=dare_ties", "seed=1", "omega=0.2"),
    )
    for words in (
        "We merged with dare_ties (weight 1, ",
        " and ties (weight 1, scale 1, density 0.2 and 0.5, normalize true, trim scope tensor).",
        "Random choices used seed 1.",
        "AIM (Nobari et al., 2025) was applied with omega 0.2 and 0.4 (statistic mean_abs, column",
        "tied head keep), and left out for the plain merges.",
        "The population tiny, trained with seed 0, consists of base, code, instruct and math.",
        "Merged were code+instruct+math.",
        "Activations of base were measured on tiny (n samples 256, ",
        ": 60 texts, 5120 tokens.",
        "in the suite tiny with lm-eval 0.4.13, on tiny_humaneval (task aim_tiny_humaneval, metric "
        "pass@1, 0 shots, 149 items), tiny_mbpp",
        "Differences were tested on the same items",
        "Software: torch 2.13.0 and lm-eval 0.4.13.",
    ):
        assert words in text
    assert "  " not in text
    assert " ." not in text


def test_what_was_not_done_is_not_told(tmp_path):
    text = paragraph(tmp_path, record("omega=null"))
    assert "AIM was not applied." in text
    for words in ("Activations", "Random choices", "Differences", "took"):
        assert words not in text


def test_latex_is_escaped(tmp_path):
    text = paragraph(tmp_path, record(), latex=True)
    assert r"aim\_tiny\_humaneval" in text
    assert "_" not in text.replace(r"\_", "")


def test_what_runs_share_is_counted_once(tmp_path):
    shared = (made("population", 3600), made("scores_base", 1800))
    text = paragraph(
        tmp_path,
        record("omega=null", stages=(*shared, made("scores_plain", 1800))),
        record("omega=0.4", stages=(*shared, made("saliency", 36), made("scores_aim", 1764))),
    )
    assert f"The 2 runs took 2.5 hours on {HERE}, the models on cpu: training," in text
    assert "Not counted" not in text


def test_machines_are_told_apart(tmp_path):
    stages = (made("population", 90), made("scores", 7200, THERE))
    text = paragraph(tmp_path, record(stages=stages))
    assert f"The run took 1.5 minutes on {HERE} and 2.0 hours on {THERE}" in text


def test_what_is_not_known_is_said(tmp_path):
    text = paragraph(tmp_path, record(stages=(made("population", None), made("scores", 12))))
    assert "took 12 seconds on" in text
    assert "Not counted are 1 of 2 results whose time is not known." in text


@pytest.mark.parametrize(("shots", "words"), [(0, "0 shots"), (1, "1 shot,"), (5, "5 shots"),
                                              (None, "its tasks' own shots")])  # fmt: skip
def test_shots_are_those_that_were_asked_with(shots, words, tmp_path):
    given = record()
    benchmarks = {
        name: replace(about, num_fewshot=shots, protocol={**about.protocol, "num_fewshot": 9})
        for name, about in given.benchmarks.items()
    }
    text = paragraph(tmp_path, replace(given, benchmarks=benchmarks))
    assert text.count(words) == 6
    assert "9 shots" not in text


def test_a_run_that_found_all_in_the_cache_rests_on_the_same(tmp_path, cli: Cli):
    for name in ("first", "again"):
        command = ("benchmarks.limit=2", "tracker=none", f"hydra.run.dir={name}", "repeat=7")
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    first, again = (read_record(tmp_path / name) for name in ("first", "again"))
    shared = [(stage.name, stage.keys, stage.seconds) for stage in first.stages]
    assert [(stage.name, stage.keys, stage.seconds) for stage in again.stages] == shared
    assert all(stage.seconds is not None for stage in first.stages)
    assert all(about.num_fewshot == 0 for about in first.benchmarks.values())
    machine = first.provenance
    text = methods_paragraph(make_report(load(tmp_path)))
    assert f"{machine['cpu']}, {machine['cpus']} processors" in text
