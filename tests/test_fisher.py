"""Fisher information against its definition, and merges weighted by it."""

from pathlib import Path

import pytest
import torch
from built_runs import built
from checkpoints import tensors
from conftest import Cli
from run_records import model_of, result
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from aim_exp.aim.fisher import fisher
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.merge import Fisher
from aim_exp.merge.groundwork import Material
from aim_exp.merge.matrices import DIRECTION


@torch.enable_grad()
def test_it_is_the_expectation_over_the_models_own_answers() -> None:
    """Of a model so small that all answers to all positions can be gone through."""
    torch.manual_seed(0)
    words, length = 7, 5
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=16,
        )
    )  # fmt: skip
    block = torch.randint(0, words, (1, length))
    names, parameters = zip(*model.named_parameters(), strict=True)
    log_p = model(input_ids=block).logits[0].log_softmax(-1)
    exact = [torch.zeros_like(parameter) for parameter in parameters]
    for place in range(1, length):  # the first is left out
        for word in range(words):
            gradients = torch.autograd.grad(log_p[place, word], parameters, retain_graph=True)
            for total, gradient in zip(exact, gradients, strict=True):
                total += log_p[place, word].exp().detach() * gradient.square()
    model.requires_grad_(False)
    with torch.no_grad():  # as after scoring
        estimate = fisher(model, block.expand(600, -1), lambda n: None, seed=0, skip=1)
    assert not any(parameter.requires_grad for parameter in parameters)
    for name, total in zip(names, exact, strict=True):
        assert estimate[name].sum().item() == pytest.approx(total.sum().item(), rel=0.15), name
        cosine = torch.cosine_similarity(estimate[name].flatten(), total.flatten(), dim=0)
        assert cosine > 0.96, name
    again = fisher(model, block.expand(3, -1), lambda n: None, seed=1)
    other = fisher(model, block.expand(3, -1), lambda n: None, seed=2)
    assert not torch.equal(again[names[0]], other[names[0]])


def test_the_merge_is_its_definition(family: Path, tmp_path: Path) -> None:
    base, *experts = (Checkpoint(family / name, name) for name in ("base", "a", "b"))
    values, files = [], {}
    for expert in experts:
        value = {name: torch.rand_like(base.tensor(name).float()) for name in base.tensors}
        value["model.norm.weight"][:4] = 0
        del value["lm_head.weight"]
        files[expert.label] = str(tmp_path / f"{expert.label}.safetensors")
        save_file(value, files[expert.label])
        values.append(value)
    method = Fisher(weight={"a": 0.5, "b": 2.0}, scale=1.0, files=files)
    (tmp_path / "laid").mkdir()
    method.work_out(Material(base, experts), tmp_path / "laid")
    direction = Checkpoint(tmp_path / "laid" / DIRECTION, DIRECTION)
    for name in base.tensors:
        start = base.tensor(name).double()
        a, b = (expert.tensor(name).double() - start for expert in experts)
        if name == "lm_head.weight":
            expected = (0.5 * a + 2 * b) / 2.5
        else:
            f, g = (value[name].double() for value in values)
            expected = (0.5 * f * a + 2 * g * b) / (0.5 * f + 2 * g)
            expected = torch.where((f == 0) & (g == 0), (a + b) / 2, expected)
        torch.testing.assert_close(direction.tensor(name).double(), expected, rtol=1e-5, atol=1e-7)
    assert not method.problems(["a", "b"], ["a", "b"])
    missing = Fisher(weight=1.0, scale=1.0, files={"a": "x.safetensors"})
    assert missing.problems(["a", "b"], ["a", "b"]) == [
        "method.files.a=x.safetensors: no such file",
        "method.files: none of b; give one of each expert, or null",
    ]


def test_measured_once_and_given_again(cli: Cli, tiny_cache: Path, tmp_path: Path) -> None:
    """What a run measured, given to the next as files, makes the same merge."""
    common = (
        "method=fisher", "omega=null", "benchmarks=none", "tracker=none", "save_model=true",
        "calibration.n_samples=8",
    )  # fmt: skip
    done = cli(*common, "hydra.run.dir=measured")
    assert done.returncode == 0, done.stderr
    record = result(tmp_path / "measured")
    (stage,) = (stage for stage in record["stages"] if stage["name"] == "measure")
    assert len(stage["keys"]) == 3
    run = built(tiny_cache, *common)
    folders = {
        name: run.store.path(spec) / "fisher.safetensors"
        for name, spec in zip(("code", "instruct", "math"), run.plan.statistics, strict=True)
    }
    assert all(load_file(path)["model.norm.weight"].all() for path in folders.values())
    table = ",".join(f"{name}: {path}" for name, path in folders.items())
    given = f"method.files={{{table}}}"
    done = cli(*common, given, "hydra.run.dir=given")
    assert done.returncode == 0, done.stderr
    again = result(tmp_path / "given")
    merged, same = (tensors(tmp_path / name / "model") for name in ("measured", "given"))
    assert all(torch.equal(same[name], tensor) for name, tensor in merged.items())
    assert "measure" not in {stage["name"] for stage in again["stages"]}
    assert not built(tiny_cache, *common, given).plan.statistics
    keys = [model_of(each)["keys"]["weights"] for each in (record, again)]
    assert keys[0] != keys[1]
