"""Every method against its plain reference; masks and blocks that change nothing."""

import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import merge as reference_merge
from relaxations import SETTINGS
from safetensors.torch import save_file
from torch import Tensor

from aim_exp import merge
from aim_exp.aim.grams import Reader
from aim_exp.aim.pull import Relaxation
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import NonFiniteError
from aim_exp.merge import (
    Breadcrumbs,
    BreadcrumbsTies,
    ConsensusTa,
    CoreTies,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    Diagonal,
    Fisher,
    Given,
    IsoC,
    IsoCts,
    Karcher,
    KnotsTies,
    Linear,
    MergeMethod,
    ModelStock,
    NuSlerp,
    Regmean,
    Sce,
    Slerp,
    TaskArithmetic,
    TensorInputs,
    Ties,
    TsvM,
    Widen,
    Wudi,
    sparsify,
    thresholds,
)
from aim_exp.merge.angles import ByAngles
from aim_exp.merge.fisher import FISHER_FILE
from aim_exp.merge.groundwork import Material
from aim_exp.merge.masks import keep_bytes, keep_mask
from aim_exp.merge.method import WeightedMethod
from aim_exp.merge.stream import stream_merge
from aim_exp.merge.task_vectors import RandomDrop
from aim_exp.tensors import uploads
from aim_exp.tensors.blocks import row_blocks
from aim_exp.tensors.inputs import all_finite
from aim_exp.tensors.scratch import Scratch

WIDEN = Widen(above_average_value_ratio=1.0, score_calibration_value=1.0, compute_dtype="float32")
WEIGHTS = {"a": 0.7, "b": 1.0, "c": -0.4}
METHODS: dict[str, tuple[MergeMethod, dict[str, Any]]] = {
    "linear": (Linear(weight=WEIGHTS), {}),
    "task_arithmetic": (TaskArithmetic(weight=WEIGHTS, scale=0.8), {"scale": 0.8}),
    "ties": (
        Ties(weight=WEIGHTS, scale=0.8, density=0.3, normalize=True, trim_scope="tensor"),
        {"scale": 0.8, "density": 0.3, "normalize": True},
    ),
    "ties unnormalised": (
        Ties(weight=1.0, scale=1.0, density=1.0, normalize=False, trim_scope="tensor"),
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
    "breadcrumbs": (
        Breadcrumbs(weight=WEIGHTS, scale=0.8, density=0.6, gamma=0.1),
        {"scale": 0.8, "density": 0.6, "gamma": 0.1},
    ),
    "breadcrumbs without a tail": (
        Breadcrumbs(weight=1.0, scale=1.0, density=0.95, gamma=0.1),
        {"density": 0.95, "gamma": 0.1},
    ),
    "breadcrumbs_ties": (
        BreadcrumbsTies(weight=WEIGHTS, scale=1.0, density=0.6, gamma=0.0, normalize=True),
        {"density": 0.6, "gamma": 0.0, "normalize": True},
    ),
    "della_linear": (
        DellaLinear(weight=WEIGHTS, scale=1.0, density=0.5, epsilon=0.3, rescale="inv_density"),
        {"density": 0.5, "epsilon": 0.3, "rescale": "inv_density"},
    ),
    "della_linear l1": (
        DellaLinear(weight=1.0, scale=1.0, density=0.3, epsilon=0.2, rescale="l1"),
        {"density": 0.3, "epsilon": 0.2, "rescale": "l1"},
    ),
    "della": (
        Della(weight=1.0, scale=0.8, density=0.4, epsilon=0.1, rescale=None, normalize=True),
        {"scale": 0.8, "density": 0.4, "epsilon": 0.1, "normalize": True},
    ),
    "consensus_ta": (
        ConsensusTa(weight=WEIGHTS, scale=0.8, mask_lambda=0.37, k=2),
        {"scale": 0.8, "mask_lambda": 0.37, "k": 2},
    ),
    "sce": (Sce(select_topk=0.3), {"select_topk": 0.3}),
    "sce all": (Sce(select_topk=1.0), {}),
    "model_stock": (ModelStock(), {}),
    "slerp": (Slerp(t=0.3), {"t": 0.3}),
    "nuslerp": (NuSlerp(weight=WEIGHTS), {}),
    "karcher": (Karcher(max_iter=10, tol=1e-5), {}),
}
FRAME: dict[str, Any] = {"weight": 1.0, "scale": 0.7, "matrices": "all", "others": "mean"}
MATRIX_METHODS = (
    KnotsTies(**FRAME, density=0.3, normalize=True),
    CoreTies(**FRAME, density=0.3, normalize=False, isotropic=True),
    TsvM(**FRAME, rank=None),
    IsoC(**FRAME, rank=None),
    IsoCts(**FRAME, rank=None, common=0.8),
    Wudi(**FRAME, solver="closed_form"),
    Regmean(weight=1.0, scale=0.7, others="mean", shrink=0.9),
    Diagonal(weight=1.0, scale=0.7, others="sum"),
    Fisher(weight=1.0, scale=0.7, files=None),
    Ties(weight=1.0, scale=1.0, density=0.3, normalize=True, trim_scope="model"),
)
SUMS = (ByAngles, Sce)
"""Methods that need sums over a tensor, which are made block by block."""


def inputs(
    shape: tuple[int, ...] = (37, 19),
    dtype: torch.dtype = torch.bfloat16,
    method: MergeMethod | None = None,
) -> TensorInputs:
    """As many experts as `method` takes, of three."""
    generator = torch.Generator().manual_seed(1)
    names = tuple(WEIGHTS)[: method and method.most_experts]
    base = torch.randn(shape, generator=generator).to(dtype)
    # Coarse deltas, so that many magnitudes are equal, at the threshold too.
    experts = tuple(
        (base.float() + torch.randint(-4, 5, shape, generator=generator) / 8).to(dtype)
        for _ in names
    )
    return TensorInputs("layer.weight", base, experts, names, seed=3)


def in_blocks(method: MergeMethod, given: TensorInputs, elements: int) -> Tensor:
    kernel = method.prepare(given)
    blocks = row_blocks(given.base.shape, elements)
    if not method.from_base:
        return torch.cat([kernel(rows).clone() for rows in blocks])
    return torch.cat([given.base_rows(rows) + kernel(rows) for rows in blocks])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_method_is_its_definition(name: str, dtype: torch.dtype) -> None:
    method, settings = METHODS[name]
    given = inputs(dtype=dtype, method=method)
    weights = method.weights_in(given)
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
    given = inputs(method=method)
    whole = in_blocks(method, given, 1 << 20)
    for elements in (1, 60, 200):
        assert torch.equal(in_blocks(method, given, elements), whole)


GPUS = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.tensors: dict[str, list[tuple[int, Tensor]]] = {}

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        self.tensors.setdefault(name, []).append((rows.start, block.clone()))

    def whole(self) -> dict[str, Tensor]:
        parts = {name: sorted(found, key=lambda p: p[0]) for name, found in self.tensors.items()}
        return {name: torch.cat([block for _, block in found]) for name, found in parts.items()}


def test_threads_blocks_and_uploads_never_change_a_bit_of_any_method(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, *experts = (Checkpoint(family / name, name) for name in ("base", "a", "b"))
    widths = {name: info.shape[-1] for name, info in base.tensors.items()}
    channels = {name: torch.rand(width) for name, width in widths.items()}
    saliency = Saliency(channels, dict.fromkeys(channels, -1), tokens=1, tied={})

    measured = []
    for expert in experts:
        draws = {name: torch.rand(width) for name, width in widths.items() if "layers" in name}
        own = Saliency(draws, dict.fromkeys(draws, -1), 1, {}, moments=draws)
        (tmp_path / expert.label).mkdir()
        own.save(tmp_path / expert.label)
        values = {name: torch.rand(info.shape) for name, info in base.tensors.items()}
        save_file(values, tmp_path / expert.label / FISHER_FILE)
        measured.append(tmp_path / expert.label)
    ids = torch.randint(3, 700, (2, 32))

    def readers(device: str | None) -> list[Reader]:
        where = [LayerwiseModel(each, "bfloat16", device or "cpu") for each in experts]
        return [Reader(each, ids, 0) for each in where]

    def merged(
        method: MergeMethod, threads: int, relax: Relaxation | None, device: str | None = None
    ) -> dict[str, Tensor]:
        kept, used = Kept(), experts[:1] if isinstance(method, Given) else experts
        if method.groundwork([*weights]) is not None:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            material = Material(
                base, used, device, threads, statistics=measured, readers=lambda: readers(device)
            )
            method.work_out(material, folder)
            method = method.upon(folder)
        stream_merge(base, used, method, kept, seed=0, relax=relax, threads=threads, device=device)
        return {name: tensor.cpu() for name, tensor in kept.whole().items()}

    weights = {"a": 0.7, "b": -0.4}
    methods = [
        replace(method, weight=weights) if isinstance(method, WeightedMethod) else method
        for method, _ in METHODS.values()
    ]
    methods += [Given(path=""), WIDEN, *MATRIX_METHODS]
    tested = {type(method).__name__ for method in methods}
    assert tested == {each.__name__ for each in merge.METHODS.values() if each.merges}
    for method in methods:
        for relax in (None, Relaxation(saliency, 0.4, SETTINGS, seed=0)):
            monkeypatch.setattr(row_blocks, "__defaults__", (1 << 18,))
            plain = merged(method, 1, relax)
            assert set(plain) == set(base.tensors)
            in_threads = merged(method, 3, relax)
            monkeypatch.setattr(uploads, "STAGING_BYTES", 1000)  # so that tensors come in pieces
            uploaded = merged(method, 1, relax, device="cpu")
            for device in GPUS:
                for name, tensor in merged(method, 1, relax, device).items():
                    assert ulps_apart(tensor, plain[name]) <= 1, (method, name, device)
            by_block = isinstance(method, RandomDrop) and method.rescale == "l1"
            if not (by_block or isinstance(method, SUMS)):
                monkeypatch.setattr(row_blocks, "__defaults__", (100,))
            in_blocks = merged(method, 2, relax)
            for name, tensor in plain.items():
                assert torch.equal(in_threads[name], tensor), (method, name)
                assert torch.equal(in_blocks[name], tensor), (method, name)
                assert torch.equal(uploaded[name], tensor), (method, name)


def ulps_apart(a: Tensor, b: Tensor) -> int:
    """The most steps from one bfloat16 to the next that elements of `a` and `b` differ by."""
    steps = [x.view(torch.int16).int() for x in (a, b)]
    ordered = [torch.where(x < 0, -32768 - x, x) for x in steps]
    return int((ordered[0] - ordered[1]).abs().max())


def test_the_first_bad_tensor_is_named_by_any_number_of_threads(family: Path) -> None:
    base = Checkpoint(family / "base", "base")
    expert = Checkpoint(family / "a", "a")
    bad = TaskArithmetic(weight=1e38, scale=1e38)
    for threads in (1, 2):
        intra_op = torch.get_num_threads()
        with pytest.raises(NonFiniteError, match="merged model: tensor"):
            stream_merge(base, [expert], bad, Kept(), seed=0, threads=threads)
        assert torch.get_num_threads() == intra_op


def test_a_sum_beyond_float16_says_how_far_it_goes(family: Path) -> None:
    base = Checkpoint(family / "base", "base")
    experts = [Checkpoint(family / name, name) for name in ("a", "b")]
    huge = TaskArithmetic(weight=1e4, scale=1e4)
    words = r"merged model: tensor .* reaches .*, and torch.float16 ends at 65504; set dtype=bfloat"
    with pytest.raises(NonFiniteError, match=words):
        stream_merge(base, experts, huge, Kept(), seed=0, dtype="float16")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(5,), (40, 30), (300, 400)])
def test_the_way_of_other_devices_gives_the_same_bits(name: str, shape: tuple[int, ...]) -> None:
    """Masks and thresholds without numpy, in blocks of another size, on the CPU's memory."""
    method, _ = METHODS[name]
    given, elsewhere = inputs(shape, method=method), inputs(shape, method=method)
    elsewhere.scratch.on_cpu = False
    assert (len(list(elsewhere.blocks())), len(list(given.blocks()))) == (1, 1)
    kernel, other = method.prepare(given), method.prepare(elsewhere)
    rows = slice(0, shape[0])
    assert torch.equal(kernel(rows), other(rows))


@pytest.mark.parametrize("values", ["equal", "two values", "sorted", "hidden", "zeros", "NaN"])
@pytest.mark.parametrize("density", [1e-5, 0.2, 0.999])
def test_ties_needs_little_memory_whatever_the_values(values: str, density: float) -> None:
    n = 1 << 21
    delta = {
        "equal": lambda: torch.full((n,), -0.5),
        "two values": lambda: torch.where(torch.arange(n) % 3 == 0, 0.5, -0.25),
        "sorted": lambda: torch.arange(n) / n,
        "hidden": lambda: 1 + torch.rand(n) / 1e4,
        "zeros": lambda: torch.zeros(n),
        "NaN": lambda: torch.full((n,), float("nan")),
    }[values]()
    if values == "hidden":  # what the sample sees, neighbours at equal distances, is far away
        run = n // (thresholds.SAMPLE // thresholds.SAMPLE_RUN)
        delta.view(-1, run)[:, : thresholds.SAMPLE_RUN] = 0
    shape = (n // 512, 512)
    given = TensorInputs("w", torch.zeros(shape), (delta.view(shape),), ("a",), 0)
    k = int(density * n)
    sparsify.top_k(given, 0, density)  # its buffers are not counted, and do not grow
    tracemalloc.start()
    threshold, last = thresholds.sampled_threshold(given, 0, k)
    peak = tracemalloc.get_traced_memory()[1]  # numpy's memory
    tracemalloc.stop()
    assert (threshold, last) == thresholds.plain_threshold(given, 0, k)
    assert peak < 8 << 20 < delta.nbytes * 3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(5,), (1, 7), (3, 2, 4), (0, 4)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    method, _ = METHODS[name]
    given = inputs(shape, method=method)
    blocks = [method.prepare(given)(rows) for rows in row_blocks(shape, 4)]
    assert sum(block.numel() for block in blocks) == given.base.numel()


def test_top_k_keeps_exactly_k_and_the_lowest_index_of_equals() -> None:
    base = torch.zeros(2, 5)
    expert = torch.tensor([[1.0, -1.0, 2.0, 1.0, 0.5], [1.0, -1.0, 1.0, 0.0, 1.0]])
    ties = Ties(
        weight=1.0, scale=1.0, density=0.45, normalize=True, trim_scope="tensor"
    )  # k = floor(4.5) = 4
    merged = in_blocks(ties, TensorInputs("w", base, (expert,), ("a",), 0), 5)
    assert merged.tolist() == [[1, -1, 2, 1, 0], [0, 0, 0, 0, 0]]


def test_ties_elects_plus_where_the_sum_is_zero_and_skips_zeros() -> None:
    base = torch.zeros(1, 3)
    experts = (torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[-1.0, 0.0, 4.0]]))
    ties = Ties(weight=1.0, scale=1.0, density=1.0, normalize=True, trim_scope="tensor")
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


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", METHODS)
def test_nan_and_infinity_come_out_of_every_kernel(name: str, bad: float) -> None:
    given = inputs(method=METHODS[name][0])
    given.experts[1][4, 4] = bad
    assert not all_finite(in_blocks(METHODS[name][0], given, 100)[4, 4])
    with pytest.raises(NonFiniteError, match=r"b: tensor layer\.weight holds NaN"):
        given.check()
    inputs().check()


@pytest.mark.parametrize("size", [7, 5000, 100_000])
@pytest.mark.parametrize("values", ["any", "coarse", "equal", "mostly zero"])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.9])
def test_top_k_is_a_sort(size: int, values: str, density: float) -> None:
    generator = torch.Generator().manual_seed(size)
    base, delta = torch.zeros(size, 1), torch.randn(size, 1, generator=generator)
    if values == "coarse":
        delta = (4 * delta).round()
    if values == "equal":
        delta = torch.full_like(delta, -2.0)
    if values == "mostly zero":
        delta *= torch.rand(size, 1, generator=generator) < 0.05
    if size == 100_000:  # a sample of the whole misleads: large values stand where it does not look
        delta[10:20] *= 100
    ties = Ties(weight=1.0, scale=1.0, density=density, normalize=False, trim_scope="tensor")
    merged = in_blocks(ties, TensorInputs("w", base, (delta,), ("a",), 0), 1000)
    order = delta.abs().flatten().sort(descending=True, stable=True).indices
    expected = torch.zeros(size)
    kept = order[: max(1, int(density * size))]
    expected[kept] = delta.flatten()[kept]
    assert torch.equal(merged.flatten(), expected)


def test_a_sample_that_misleads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs()
    ties, _ = METHODS["ties"]
    right = in_blocks(ties, given, 1 << 20)
    monkeypatch.setattr(thresholds, "SAMPLE", 64)  # small enough that the tensor is sampled
    for bounds in ((0.0, 0.0), (9.0, 9.5), (0.2, 0.3)):
        wrong = tuple(map(np.float32, bounds))
        monkeypatch.setattr(thresholds, "_bracket", lambda inputs, expert, k, wrong=wrong: wrong)
        assert torch.equal(in_blocks(ties, given, 1 << 20), right)


@pytest.mark.parametrize("density", [1e-6, 0.2, 0.5, 1 - 1e-6])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 10), (4, 4001), (10**9 + 1, 999)])
def test_the_quick_mask_is_its_definition(density: float, first: int, count: int) -> None:
    for key in (0, -5, 2**63 - 1, -(2**63)):
        quick = keep_bytes(key, first, count, density, Scratch())
        assert torch.equal(quick.bool(), keep_mask(key, first, count, density))


def test_a_method_for_two_models_refuses_three() -> None:
    class Pair(Linear):
        most_experts = 2

    assert Pair(weight=1.0).problems(["a", "b", "c"], ["a", "b"]) == []
    (problem,) = Pair(weight=1.0).problems(["a", "b", "c"], ["a", "b", "c"])
    assert "population.merge=[a,b,c]" in problem
    assert "at most 2" in problem
    (problem,) = ModelStock().problems(["a", "b", "c"], ["b"])
    assert "population.merge=[b]: ModelStock merges at least 2 experts" in problem
    assert Slerp(t=0.5).problems(["a"], ["a"]) == []


def test_methods_of_angles_at_their_ends() -> None:
    """One direction, opposed ones, none at all: what each definition says there."""
    x, zero = torch.randn(4, 3), torch.zeros(4, 3)

    def merged(method: MergeMethod, *experts: Tensor, base: Tensor = zero) -> Tensor:
        return in_blocks(method, TensorInputs("w", base, experts, ("a", "b")[: len(experts)], 0), 5)

    karcher, nuslerp = Karcher(max_iter=10, tol=1e-5), NuSlerp(weight=1.0)
    for method in (ModelStock(), Slerp(t=0.5), nuslerp, karcher, Sce(select_topk=1.0)):
        torch.testing.assert_close(merged(method, x, x), x)
        assert not merged(method, zero, zero).any()
    torch.testing.assert_close(merged(karcher, x), x)
    torch.testing.assert_close(merged(karcher, x, -x), x)  # opposed: the first
    torch.testing.assert_close(merged(karcher, x, 3 * x), 2 * x)
    torch.testing.assert_close(merged(Slerp(t=0.25), x, -x), 0.5 * x)  # a line
    assert not merged(ModelStock(), x, -x).any()
    for t, end in ((0.0, zero + 1), (1.0, x)):
        torch.testing.assert_close(merged(Slerp(t=t), x, base=zero + 1), end)
    same = Sce(select_topk=0.5)
    assert not merged(same, x, x).any()  # no variance: nothing is selected
    tiny = 1e-6 * torch.randn(4, 3)  # where mergekit weighs equally
    torch.testing.assert_close(
        merged(Sce(select_topk=1.0), tiny, 2 * tiny), tiny * 9 / 5, rtol=1e-4, atol=0.0
    )


def test_consensus_between_task_arithmetic_and_base() -> None:
    given = inputs()
    plain = in_blocks(TaskArithmetic(weight=1.0, scale=1.0), given, 100)
    for k, expected in ((0, plain), (len(WEIGHTS) + 1, given.base.float())):
        method = ConsensusTa(weight=1.0, scale=1.0, mask_lambda=0.4, k=k)
        assert torch.equal(in_blocks(method, given, 100), expected)


def test_della_drops_small_magnitudes_sooner_and_keeps_the_mean() -> None:
    base, expert = torch.zeros(2000, 11), torch.arange(1.0, 12).expand(2000, 11)
    della = DellaLinear(weight=1.0, scale=1.0, density=0.5, epsilon=0.4, rescale="inv_density")
    merged = in_blocks(della, TensorInputs("w", base, (expert,), ("a",), 0), 1000)
    shares = (merged != 0).double().mean(0)
    assert (shares - torch.linspace(0.1, 0.9, 11)).abs().max() < 0.05
    assert (merged.mean(0) / expert[0] - 1).abs().max() < 0.25  # 4 / sqrt(200)
    (problem,) = replace(della, epsilon=0.5).problems(["a"], ["a"])
    assert problem.startswith("method.epsilon=0.5: must be below 0.5")
    assert not replace(della, epsilon=0.5, density=1.0).problems(["a"], ["a"])
