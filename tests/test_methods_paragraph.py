"""The appendix: what the results rest on is counted once, and named as it was."""

from dataclasses import replace

import pytest
from conftest import Cli
from records import record, write_all

from aim_exp.report.methods_paragraph import methods_paragraph
from aim_exp.report.results import collect
from aim_exp.store.records import read_record

HERE, THERE = "AMD EPYC, 2 processors, 24 GiB of memory", "Xeon, 8 processors, 64 GiB, 1 x H100"


def made(seconds: float, machine: str = HERE) -> dict[str, object]:
    return {"seconds": seconds, "machine": machine}


def paragraph(directory, *products) -> str:
    jobs = [record("ties", omega, products=each, device="cpu")
            for omega, each in zip((None, 0.4, 0.2), products, strict=False)]  # fmt: skip
    return methods_paragraph(collect(write_all(directory, *jobs)))


def test_what_runs_share_is_counted_once(tmp_path):
    shared = {"population/p": made(3600), "scores/base": made(1800)}
    text = paragraph(
        tmp_path,
        {**shared, "scores/plain": made(1800)},
        {**shared, "saliency/s": made(36), "scores/aim": made(1764)},
    )
    assert f"The 2 runs took 2.5 hours on {HERE}, the models on cpu: training," in text
    assert "Not counted" not in text


def test_machines_are_told_apart(tmp_path):
    text = paragraph(tmp_path, {"population/p": made(90), "scores/a": made(7200, THERE)})
    assert f"The run took 1.5 minutes on {HERE} and 2.0 hours on {THERE}" in text


def test_what_is_not_known_is_said(tmp_path):
    text = paragraph(tmp_path, {"population/p": None, "scores/a": made(12)})
    assert "took 12 seconds on" in text
    assert "Not counted are 1 of 2 results whose time is not known." in text


@pytest.mark.parametrize(("shots", "words"), [(0, "0 shots"), (1, "1 shot)"), (5, "5 shots"),
                                              (None, "its tasks' own shots")])  # fmt: skip
def test_shots_are_those_that_were_asked_with(shots, words, tmp_path):
    given = record("ties", 0.4)
    asked = {name: {"task": name, "metric": "acc,none", "num_fewshot": shots,
                    "protocol": {"num_fewshot": 9}} for name in given.scores or {}}  # fmt: skip
    write_all(tmp_path, replace(given, benchmarks=asked))
    text = methods_paragraph(collect(tmp_path))
    assert text.count(words) == 6
    assert "9 shots" not in text


def test_a_run_that_found_all_in_the_cache_rests_on_the_same(tmp_path, cli: Cli):
    for name in ("first", "again"):
        command = ("benchmarks.limit=2", "tracker=none", f"hydra.run.dir={name}", "repeat=7")
        done = cli(*command)
        assert done.returncode == 0, done.stderr
    first, again = (read_record(tmp_path / name) for name in ("first", "again"))
    assert again.products == first.products
    stages = [key.split("/")[0] for key in first.products]
    assert stages.count("scores") == 5 * 6
    assert {"population", "saliency", "weights", "scores"} == set(stages)
    taken = [made["seconds"] for key, made in first.products.items() if made and "scores" in key]
    assert len(taken) == 5 * 6
    assert all(taken)
    assert "merge" in first.timings
    assert "merge" not in again.timings  # nothing was made again
    assert all(about["num_fewshot"] == 0 for about in first.benchmarks.values())
    machine = first.provenance
    assert f"{machine['cpu']}, {machine['cpus']} processors" in methods_paragraph(collect(tmp_path))
