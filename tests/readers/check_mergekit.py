"""`make check-mergekit`: merges by mergekit 0.1.5 and ours, in float32. No part of `make test`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from conftest import llama_config
from test_merge import Kept

from aim_exp import merge
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.merge import MergeMethod
from aim_exp.merge.stream import stream_merge

ENVIRONMENT = Path(os.environ["READER_ENVIRONMENTS"]) / "mergekit"
EXPERTS = ("a", "b", "c")
TRIM: dict[str, Any] = {"weight": 0.7, "density": 0.6}
TAILS = {**TRIM, "gamma": 0.05}
CASES: dict[str, tuple[MergeMethod, int, dict[str, Any]]] = {
    "linear": (merge.Linear(weight=0.7), 3, {"weight": 0.7}),
    "task_arithmetic": (merge.TaskArithmetic(weight=0.7, scale=1.0), 3, {"weight": 0.7}),
    "ties": (merge.Ties(**TRIM, scale=1.0, normalize=True, trim_scope="tensor"), 3, TRIM),
    "breadcrumbs": (merge.Breadcrumbs(**TAILS, scale=1.0), 3, TAILS),
    "breadcrumbs_ties": (
        merge.BreadcrumbsTies(**TAILS, scale=1.0, normalize=False),
        3,
        {**TAILS, "normalize": False},
    ),
    "sce": (merge.Sce(select_topk=0.4), 3, {"select_topk": 0.4}),
    "model_stock": (merge.ModelStock(), 3, {}),
    "nuslerp": (merge.NuSlerp(weight={"a": 0.3, "b": 0.9}), 2, {"weight": [0.3, 0.9]}),
    "slerp": (merge.Slerp(t=0.3), 1, {"t": 0.3}),
    "karcher": (merge.Karcher(max_iter=10, tol=1e-5), 3, {}),
}
BASELESS = ("linear", "karcher")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    base = hf.LlamaForCausalLM(llama_config())
    base.save_pretrained(folder / "base")
    for seed, name in enumerate(EXPERTS, 1):
        expert = hf.LlamaForCausalLM.from_pretrained(folder / "base")
        for drawn in (0, seed):  # something in common: below zero, model_stock's cosine counts not
            torch.manual_seed(drawn)
            for parameter in expert.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        expert.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_mergekit_merges_the_same(name: str, models: Path, tmp_path: Path) -> None:
    method, count, settings = CASES[name]
    names, shared = EXPERTS[:count], {k: v for k, v in settings.items() if k != "weight"}
    weights = settings.get("weight")
    each = weights if isinstance(weights, list) else [weights] * count
    config: dict[str, Any] = {
        "merge_method": name,
        "dtype": "float32",
        "parameters": shared,
        "models": [
            {"model": str(models / n), "parameters": {"weight": w} if w else {}}
            for n, w in zip(names, each, strict=True)
        ],
    }
    if name not in BASELESS:
        config["base_model"] = str(models / "base")
    if name == "slerp":
        config["models"].append({"model": str(models / "base")})
    (tmp_path / "merge.yaml").write_text(json.dumps(config))
    script = [ENVIRONMENT / "bin" / "python", ENVIRONMENT / "bin" / "mergekit-yaml"]
    command = [*script, tmp_path / "merge.yaml", tmp_path / "theirs", "--no-copy-tokenizer"]
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    base, *experts = (Checkpoint(models / n, n) for n in ("base", *names))
    kept = Kept()
    stream_merge(base, experts, method, kept, seed=0)
    theirs = Checkpoint(tmp_path / "theirs", "theirs")
    ours = kept.whole()
    assert set(theirs.tensors) == set(ours)
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs.tensor(key), rtol=1e-5, atol=2e-6, msg=key)
