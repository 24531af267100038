"""Every method against its plain reference; masks and blocks that change nothing."""

import pytest
import torch
from reference import merge as reference_merge
from torch import Tensor

from aim_exp.merge import (
    DareLinear,
    DareTies,
    Linear,
    MergeMethod,
    TaskArithmetic,
    TensorInputs,
    Ties,
)
from aim_exp.merge.blocks import row_blocks
from aim_exp.merge.sparsify import keep_mask

WEIGHTS = {"a": 0.7, "b": 1.0, "c": -0.4}
METHODS: dict[str, tuple[MergeMethod, dict[str, object]]] = {
    "linear": (Linear(weight=WEIGHTS), {}),
    "task_arithmetic": (TaskArithmetic(weight=WEIGHTS, scale=0.8), {"scale": 0.8}),
    "ties": (
        Ties(weight=WEIGHTS, scale=0.8, density=0.3, normalize=True),
        {"scale": 0.8, "density": 0.3, "normalize": True},
    ),
    "ties unnormalised": (
        Ties(weight=1.0, scale=1.0, density=1.0, normalize=False),
        {"density": 1.0, "normalize": False},
    ),
    "dare_linear": (
        DareLinear(weight=WEIGHTS, scale=1.0, density=0.5, rescale="inv_density"),
        {"density": 0.5, "rescale": "inv_density"},
    ),
    "dare_linear l1": (
        DareLinear(weight=WEIGHTS, scale=1.0, density=0.25, rescale="l1"),
        {"density": 0.25, "rescale": "l1"},
    ),
    "dare_ties": (
        DareTies(weight=1.0, scale=1.0, density=0.5, rescale=None, normalize=True),
        {"density": 0.5, "normalize": True},
    ),
}


def inputs(shape: tuple[int, ...] = (37, 19), dtype: torch.dtype = torch.bfloat16) -> TensorInputs:
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(shape, generator=generator).to(dtype)
    # Coarse deltas, so that many magnitudes are equal, at the threshold too.
    experts = tuple(
        (base.float() + torch.randint(-4, 5, shape, generator=generator) / 8).to(dtype)
        for _ in WEIGHTS
    )
    return TensorInputs("layer.weight", base, experts, tuple(WEIGHTS), seed=3)


def in_blocks(method: MergeMethod, given: TensorInputs, elements: int) -> Tensor:
    kernel = method.prepare(given)
    return torch.cat([kernel(rows) for rows in row_blocks(given.base.shape, elements)])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_method_is_its_definition(name: str, dtype: torch.dtype) -> None:
    method, settings = METHODS[name]
    given = inputs(dtype=dtype)
    weights = method.weights(list(WEIGHTS))  # type: ignore[attr-defined]
    experts = dict(zip(given.expert_names, given.experts, strict=True))
    expected = reference_merge(
        name.split()[0], given.name, given.base, experts, weights, seed=3, **settings
    )
    merged = in_blocks(method, given, 1 << 20)
    assert merged.dtype == torch.float32
    torch.testing.assert_close(merged.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_blocks_never_change_a_bit(name: str) -> None:
    method, _ = METHODS[name]
    given = inputs()
    whole = in_blocks(method, given, 1 << 20)
    for elements in (1, 60, 200):
        assert torch.equal(in_blocks(method, given, elements), whole)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(5,), (1, 7), (3, 2, 4), (0, 4)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    method, _ = METHODS[name]
    given = inputs(shape)
    blocks = [method.prepare(given)(rows) for rows in row_blocks(shape, 4)]
    assert sum(block.numel() for block in blocks) == given.base.numel()


def test_top_k_keeps_exactly_k_and_the_lowest_index_of_equals() -> None:
    base = torch.zeros(2, 5)
    expert = torch.tensor([[1.0, -1.0, 2.0, 1.0, 0.5], [1.0, -1.0, 1.0, 0.0, 1.0]])
    ties = Ties(weight=1.0, scale=1.0, density=0.45, normalize=True)  # k = floor(4.5) = 4
    merged = in_blocks(ties, TensorInputs("w", base, (expert,), ("a",), 0), 5)
    assert merged.tolist() == [[1, -1, 2, 1, 0], [0, 0, 0, 0, 0]]


def test_ties_elects_plus_where_the_sum_is_zero_and_skips_zeros() -> None:
    base = torch.zeros(1, 3)
    experts = (torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[-1.0, 0.0, 4.0]]))
    ties = Ties(weight=1.0, scale=1.0, density=1.0, normalize=True)
    merged = in_blocks(ties, TensorInputs("w", base, experts, ("a", "b"), 0), 8)
    assert merged.tolist() == [[1, 0, 3]]


def test_mask_is_a_function_of_seed_expert_tensor_and_index() -> None:
    dare = DareLinear(weight=1.0, scale=1.0, density=0.5, rescale=None)
    base, expert = torch.zeros(40, 50), torch.ones(40, 50)

    def mask(seed: int = 0, expert_name: str = "a", tensor: str = "w") -> Tensor:
        return in_blocks(dare, TensorInputs(tensor, base, (expert,), (expert_name,), seed), 100)

    assert torch.equal(mask(), mask())
    for other in (mask(seed=1), mask(expert_name="b"), mask(tensor="v")):
        assert 0.4 < (mask() == other).float().mean() < 0.6  # independent: half agree
    both = TensorInputs("w", base, (expert, expert), ("b", "a"), 0)
    assert torch.equal(in_blocks(dare, both, 100), mask(expert_name="b") + mask())


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_share_of_kept_elements(density: float) -> None:
    mask = keep_mask(key=-5, first=3, count=1_000_000, density=density).double()
    assert abs(mask.mean() - density) < 4 * (density * (1 - density) / 1e6) ** 0.5
    neighbours = (mask[:-1] * mask[1:]).mean()
    assert abs(neighbours - density**2) < 0.002


def test_nan_is_refused_and_named() -> None:
    given = inputs()
    given.experts[1][4, 4] = float("nan")
    for method, _ in METHODS.values():
        with pytest.raises(ValueError, match=r"b: tensor layer\.weight holds NaN"):
            in_blocks(method, given, 100)


def test_a_method_for_two_models_refuses_three() -> None:
    class Pair(Linear):
        most_experts = 2

    assert Pair(weight=1.0).problems(["a", "b", "c"], ["a", "b"]) == []
    (problem,) = Pair(weight=1.0).problems(["a", "b", "c"], ["a", "b", "c"])
    assert "population.merge=[a,b,c]" in problem
    assert "at most 2" in problem
