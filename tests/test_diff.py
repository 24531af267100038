"""`python -m aim_exp.diff`: what it measures, what it cannot compare, its exit codes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.diff import Comparison, compare_checkpoints, compare_tensors, main
from aim_exp.tensors.blocks import BLOCK_ELEMENTS

WEIGHTS = "model.safetensors"


def compared(a: Path, b: Path, base: Path | None = None) -> Comparison:
    return compare_checkpoints(
        Checkpoint(a, "A"), Checkpoint(b, "B"), Checkpoint(base, "base") if base else None
    )


def changed(source: Path, target: Path, **tensors: torch.Tensor | None) -> Path:
    """A copy of a model with some tensors replaced, or removed where None is given."""
    shutil.copytree(source, target)
    content = load_file(target / WEIGHTS)
    for name, tensor in tensors.items():
        content.pop(name)
        content |= {} if tensor is None else {name: tensor}
    save_file(content, target / WEIGHTS)
    return target


def test_the_measures_are_their_definitions() -> None:
    """Over several blocks of rows, in any dtype."""
    torch.manual_seed(0)
    shape = (3, BLOCK_ELEMENTS // 2 + 1)
    base = torch.randn(shape).bfloat16()
    a, b = ((base.float() + torch.randn(shape) / 10).bfloat16() for _ in range(2))
    b[1] = a[1]
    difference = compare_tensors(a, b, base)
    da, db = a.double() - base.double(), b.double() - base.double()
    assert difference.elements == a.numel()
    assert difference.equal_share == (a == b).double().mean()
    assert difference.relative == pytest.approx(((da - db).norm() / db.norm()).item())
    cosine = torch.nn.functional.cosine_similarity(da.flatten(), db.flatten(), 0)
    assert difference.cosine == pytest.approx(cosine.item())
    plain = compare_tensors(a, b)
    assert plain.relative == pytest.approx(((da - db).norm() / b.double().norm()).item())


def test_values_count_and_not_their_dtype() -> None:
    a = torch.tensor([1.0, float("nan"), 0.0], dtype=torch.bfloat16)
    assert compare_tensors(a, a.float()).equal == 3
    assert compare_tensors(a, a.float() + 1e-3).equal == 1
    whole = torch.tensor([1, 2, 3])
    assert compare_tensors(whole, whole).equal_share == 1


def test_deltas_that_are_none_have_no_direction() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    same = compare_tensors(one, one, one)
    assert (same.relative, same.cosine) == (0, None)
    assert compare_tensors(zero, one, one).relative is None


def test_grouped_by_kind(family: Path) -> None:
    comparison = compared(family / "a", family / "b", family / "base")
    kinds = comparison.by_kind()
    assert kinds["q_proj"].tensors == 2
    assert set(kinds) == {
        "embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
        "down_proj", "input_layernorm", "post_attention_layernorm", "norm", "lm_head",
    }  # fmt: skip
    assert sum(kind.elements for kind in kinds.values()) == comparison.total.elements
    assert comparison.total.relative == pytest.approx(2**0.5, rel=0.1)  # two independent deltas
    assert comparison.total.cosine == pytest.approx(0, abs=0.1)
    assert not comparison.same
    assert compared(family / "a", family / "a", family / "base").same


def test_what_cannot_be_compared_is_listed(family: Path, tmp_path: Path) -> None:
    head, norm = "lm_head.weight", "model.norm.weight"
    other = changed(family / "a", tmp_path / "other", **{head: torch.zeros(9, 24), norm: None})
    for comparison in (compared(family / "a", other), compared(other, family / "a")):
        assert sorted(line.partition(":")[0] for line in comparison.unmatched) == [head, norm]
        assert any("[768, 24]" in line and "[9, 24]" in line for line in comparison.unmatched)
        assert comparison.total.equal_share == 1
        assert not comparison.same


def test_the_command(family: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, base = (str(family / name) for name in ("a", "b", "base"))
    assert main([a, a, "--base", base]) == 0
    output = capsys.readouterr().out
    assert "100.00%" in output
    assert output.endswith("equal\n")
    assert main([a, b, "--tensors"]) == 1
    output = capsys.readouterr().out
    assert output.count(".weight") == len(Checkpoint(family / "a", "A").tensors)
    assert main([a, "no/such/folder/at/all"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: B=no/such/folder/at/all: no such folder")
    assert errors.count("\n") == 1


def test_nearly_equal_is_not_shown_as_equal(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "lm_head.weight"
    weight = load_file(family / "a" / WEIGHTS)[name]
    weight[5, 5] += 1
    other = changed(family / "a", tmp_path / "other", **{name: weight})
    assert main([str(family / "a"), str(other)]) == 1
    (total,) = (line for line in capsys.readouterr().out.splitlines() if "total" in line)
    assert "99.99%" in total


def test_a_module_that_can_be_called(family: Path) -> None:
    arguments = [sys.executable, "-m", "aim_exp.diff", str(family / "a"), str(family / "b")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "q_proj" in done.stdout
