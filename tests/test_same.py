"""Same in, same out: over processes, threads and orders of jobs; over batches as far as said."""

import multiprocessing
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_here
from run_records import responses_of, result
from safetensors.torch import load_file

from aim_exp.evaluate.near_ties import NEAR
from aim_exp.evaluate.responses import kept_responses

METHODS = ("dare_ties", "sce", "widen", "tsv_m", "wudi")
"""Elementwise with masks and without, by columns; SVDs and eigendecompositions."""


def merge_all(folder: Path, methods: Sequence[str], threads: int, to: str) -> None:
    """A run for each method, in this order, with the models and the saliency of `folder`."""
    for method in methods:
        done = run_here(
            "population=custom", f"population.base={folder / 'base'}",
            f"population.experts={{a: {folder / 'a'}, b: {folder / 'b'}}}", "omega=0.4",
            "calibration=text", f"calibration.path={folder / 'texts.txt'}", f"method={method}",
            "calibration.block_size=16", "benchmarks=none", "tracker=none", "save_model=true",
            f"threads={threads}", f"cache_dir={to}/cache", f"hydra.run.dir={to}/{method}",
            cwd=folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_merges_are_bit_equal_in_other_processes_threads_and_orders(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # of two threads on a busy machine
    there = shutil.copytree(family, tmp_path / "there")
    (there / "texts.txt").write_text("One text, to be read.\n\nAnother text.\n")
    merge_all(there, METHODS, 1, "first")
    (there / "second" / "cache").mkdir(parents=True)
    (there / "first/cache/saliency").rename(there / "second/cache/saliency")
    others = (there, METHODS[::-1], 2, "second")
    process = multiprocessing.get_context("spawn").Process(target=merge_all, args=others)
    process.start()
    process.join()
    assert process.exitcode == 0
    for method in METHODS:
        once, again = (
            load_file(there / to / method / "model" / "model.safetensors")
            for to in ("first", "second")
        )
        assert once.keys() == again.keys()
        for name, tensor in once.items():
            assert torch.equal(tensor, again[name]), (method, name)


def answers(run: Path, cache: Path) -> dict[tuple[str, str], Any]:
    """By model and request."""
    return {
        (name, request): answer
        for name, key in responses_of(result(run)).items()
        for request, answer in kept_responses(cache / "responses" / key).items()
    }


def test_texts_are_equal_in_other_batches_and_log_likelihoods_nearly(
    tiny_population: Path, tmp_path: Path
) -> None:
    found = []
    for number, (size, threads) in enumerate([("null", 1), (1, 1), (7, 2)]):
        cache = tmp_path / f"cache{number}"
        line = (
            "population=custom", f"population.base={tiny_population / 'base'}",
            "population.experts={}", "method=none", "benchmarks.limit=3", "tracker=none",
            f"threads={threads}", f"evaluator.batch_size={size}", f"cache_dir={cache}",
        )  # fmt: skip
        try:
            done = run_here(*line, "hydra.run.dir=run", cwd=tmp_path)
        finally:
            torch.set_num_threads(1)
        assert done.returncode == 0, done.stderr
        found.append(answers(tmp_path / "run", cache))
    first, *others = found
    texts = {request: text for request, text in first.items() if isinstance(text, str)}
    assert len(texts) == 15
    assert len(first) - len(texts) == 27
    for other in others:
        assert other.keys() == first.keys()
        assert {request: other[request] for request in texts} == texts
        spread = 0.0
        for request in first.keys() - texts.keys():
            assert other[request][1] == first[request][1], "whether it is the likeliest text"
            spread = max(spread, abs(other[request][0] - first[request][0]))
        assert spread < NEAR / 5, "docs/reliability.md says 8e-6"
