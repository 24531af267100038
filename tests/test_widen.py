"""WIDEN against a plain version, column by column."""

import math

import pytest
import torch
from torch import Tensor

from aim_exp.merge import TensorInputs, Widen
from aim_exp.tensors.blocks import row_blocks

WIDEN = Widen(above_average_value_ratio=1.0, score_calibration_value=1.0, compute_dtype="float32")


def plain_widen(base: Tensor, experts: list[Tensor]) -> Tensor:
    """The definition, with lists, for a matrix whose columns count."""
    n = base.shape[1]

    def ranks(values: list[float]) -> list[int]:
        order = sorted(range(n), key=lambda j: values[j])  # sorted is stable
        return [order.index(j) for j in range(n)]

    def change_of_direction(x: Tensor, b: Tensor) -> float:
        return 0.0 if not x.norm() * b.norm() else 1 - float(x @ b / (x.norm() * b.norm()))

    magnitude = [
        ranks([abs(float(x[:, j].norm() - base[:, j].norm())) for j in range(n)]) for x in experts
    ]
    direction = [
        ranks([change_of_direction(x[:, j], base[:, j]) for j in range(n)]) for x in experts
    ]
    out = base.clone()
    for j in range(n):
        for i, x in enumerate(experts):
            weight = 0.0
            for quantity in (magnitude, direction):
                powers = [math.exp(r[j] / n) for r in quantity]
                above = 2 * quantity[i][j] > n - 1
                weight += 0.5 * (1.0 if above else powers[i] / sum(powers))
            out[:, j] += weight * (x[:, j] - base[:, j])
    return out


def merged(name: str, base: Tensor, experts: list[Tensor], elements: int = 1 << 20) -> Tensor:
    names = tuple("abc"[: len(experts)])
    kernel = WIDEN.prepare(TensorInputs(name, base, tuple(experts), names, 0))
    return torch.cat([kernel(rows) for rows in row_blocks(base.shape, elements)])


@pytest.mark.parametrize("columns", [6, 7])
@pytest.mark.parametrize("experts", [1, 2, 3])
def test_matrix(columns: int, experts: int) -> None:
    g = torch.Generator().manual_seed(0)
    base = torch.randn(5, columns, generator=g)
    base[:, 2] = 0  # no direction
    tuned = [base + 0.3 * torch.randn(5, columns, generator=g) for _ in range(experts)]
    expected = plain_widen(base, tuned)
    torch.testing.assert_close(merged("w", base, tuned), expected)
    assert torch.equal(merged("w", base, tuned, 7), merged("w", base, tuned))
    # For token embeddings a column is a token: the transposed definition.
    flipped = merged("model.embed_tokens.weight", base.T.contiguous(), [x.T for x in tuned])
    torch.testing.assert_close(flipped.T, expected)


def test_vector_uses_raw_differences() -> None:
    base = torch.zeros(4)
    a, b = torch.tensor([1.0, 0, 0, 3.0]), torch.tensor([0.0, 2.0, 0, 0.2])
    s = torch.softmax(torch.stack([a, b]).abs(), 0)
    weight_a = torch.tensor([s[0, 0], s[0, 1], s[0, 2], 1.0])  # mean 1: only 3 is above
    weight_b = torch.tensor([s[1, 0], 1.0, s[1, 2], s[1, 3]])  # mean 0.55
    torch.testing.assert_close(merged("norm.weight", base, [a, b]), weight_a * a + weight_b * b)


def test_half_of_the_columns_are_calibrated_whatever_their_number() -> None:
    from aim_exp.merge.disentangle import _scores

    for n in (1, 2, 7, 8):
        scores = _scores(torch.rand(2, n), 1.0, 5.0)
        assert ((scores == 5.0).sum(1) == n // 2).all()


def test_bfloat16_ranks_by_position() -> None:
    """Few differences are distinct there: another method in effect, as the published one."""
    g = torch.Generator().manual_seed(0)
    base = torch.randn(64, 64, generator=g)
    tuned = [base + 0.001 * torch.randn(64, 64, generator=g) for _ in range(2)]
    coarse = Widen(
        above_average_value_ratio=1.0, score_calibration_value=1.0, compute_dtype="bfloat16"
    )
    kernel = coarse.prepare(TensorInputs("w", base, tuple(tuned), ("a", "b"), 0))
    delta = (kernel(slice(0, 64)) - base).abs().sum(0)
    exact = (merged("w", base, tuned) - base).abs().sum(0)
    assert not torch.allclose(delta, exact, rtol=1e-3)
    assert delta[32:].mean() > delta[:32].mean()  # late columns rank high among equals


def test_nan_is_refused() -> None:
    bad = torch.ones(3, 3)
    bad[1, 1] = float("nan")
    with pytest.raises(ValueError, match="a: tensor w holds NaN"):
        merged("w", torch.ones(3, 3), [bad])
