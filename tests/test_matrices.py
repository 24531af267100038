"""Methods that need whole matrices: against slow code, at their ends, and once per sweep."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from built_runs import built
from conftest import Cli
from numpy.typing import NDArray
from run_records import model_of, result
from safetensors.torch import save_file
from test_merge import Kept
from torch import Tensor
from transformers import LlamaForCausalLM

from aim_exp.aim.grams import Reader
from aim_exp.aim.measure import measure
from aim_exp.checkpoint.layerwise import LayerwiseModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import NonFiniteError
from aim_exp.merge import Diagonal, IsoC, IsoCts, Regmean, Ties, TsvM, Wudi
from aim_exp.merge.groundwork import Material
from aim_exp.merge.matrices import DIRECTION, MatrixMethod, is_matrix
from aim_exp.merge.quadratic import solve
from aim_exp.merge.stream import n_elements, stream_merge
from aim_exp.merge.thresholds import model_trim
from aim_exp.population.embedded.items import KINDS
from aim_exp.population.embedded.items import test_items as items_of
from aim_exp.population.embedded.training import EXPERTS, N_EXAMPLES, expert_examples
from aim_exp.run.forecast import needs

FRAME: dict[str, Any] = {"weight": 1.0, "scale": 1.0, "matrices": "linear", "others": "mean"}
TSV_M = TsvM(**FRAME, rank=None)
ISO_C = IsoC(**FRAME, rank=None)
ISO_CTS = IsoCts(**FRAME, rank=None, common=0.8)
SPECTRAL = {"tsv_m": TSV_M, "iso_c": ISO_C, "iso_cts": ISO_CTS}
SHAPES = [(9, 14), (14, 9), (12, 12), (2, 7), (1, 5)]
Matrix = NDArray[np.float64]


def svd(matrix: Matrix, count: int) -> tuple[Matrix, Matrix, Matrix]:
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :count], s[:count], v[:count]


def nearest_orthogonal(matrix: Matrix) -> Matrix:
    """By its definition, M (M^T M)^(-1/2), on the shorter side."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    values, vectors = np.linalg.eigh(tall.T @ tall)
    found = tall @ vectors @ np.diag(values**-0.5) @ vectors.T
    return found if tall is matrix else found.T


def slow(name: str, deltas: Sequence[Matrix]) -> Matrix:
    """The definitions, for deltas of full rank and no more experts than directions."""
    count, k = len(deltas), min(deltas[0].shape)
    total: Matrix = sum(deltas, start=np.zeros_like(deltas[0]))
    if name == "iso_c":
        return nearest_orthogonal(total) * svd(total, k)[1].mean()
    if name == "tsv_m":
        parts = [svd(d, k // count) for d in deltas]
        middle = np.diag(np.concatenate([s for _, s, _ in parts]))
    else:
        own = round((k - int(0.8 * k)) / count)
        common = svd(total, k - own * count)
        left = [d - common[0] @ common[0].T @ d for d in deltas]
        parts = [*(svd(d, own) for d in left), common]
        sizes = np.concatenate([s for _, s, _ in parts])
        middle = np.eye(len(sizes)) * sizes.mean()
    u = np.concatenate([u for u, _, _ in parts], axis=1)
    v = np.concatenate([v for _, _, v in parts], axis=0)
    return nearest_orthogonal(u) @ middle @ nearest_orthogonal(v)


def drawn(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.manual_seed(len(shape)))


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_direction_is_its_definition(name: str, count: int, shape: tuple[int, int]) -> None:
    deltas = drawn(count, shape)
    if count > min(shape):  # more experts than directions: only that it is well defined
        assert SPECTRAL[name].direction(deltas).isfinite().all()
        return
    expected = slow(name, [*deltas.numpy()])
    found = SPECTRAL[name].direction(deltas).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12 * max(shape) * np.abs(expected).max())


@pytest.mark.parametrize("name", SPECTRAL)
def test_order_zeros_and_equal_experts(name: str) -> None:
    method = SPECTRAL[name]
    deltas = drawn(3, (8, 12))
    torch.testing.assert_close(method.direction(deltas[[2, 0, 1]]), method.direction(deltas))
    assert not method.direction(0 * deltas).any()
    one = deltas[:1]
    if name == "tsv_m":
        torch.testing.assert_close(method.direction(one), one[0])
        u, s, v = svd(one[0].numpy(), 8 // 2)
        equal = method.direction(one.expand(2, -1, -1))
        torch.testing.assert_close(equal, torch.from_numpy(u * s @ v))  # counted once
    else:
        twice = method.direction(one.expand(2, -1, -1))
        same = ISO_C.direction(2 * one)
        if name == "iso_c":
            torch.testing.assert_close(twice, same)
        values = np.linalg.svd(twice.numpy())[1]
        np.testing.assert_allclose(values[values > 1e-9], values[0])


@pytest.mark.parametrize("name", SPECTRAL)
def test_orthogonal_experts_do_not_disturb_each_other(name: str) -> None:
    """Blocks on the diagonal: each expert's directions, whatever else becomes of their lengths."""
    deltas = torch.zeros(2, 8, 10, dtype=torch.float64)
    deltas[0, :4, :5], deltas[1, 4:, 5:] = drawn(2, (4, 5))
    direction = SPECTRAL[name].direction(deltas)
    assert direction[:4, 5:].abs().max() < 1e-12
    assert direction[4:, :5].abs().max() < 1e-12
    if name == "tsv_m":
        torch.testing.assert_close(direction, deltas.sum(0))


@pytest.mark.parametrize("name", SPECTRAL)
def test_what_no_expert_uses_stays_base(name: str) -> None:
    """Deltas of rank 2: no energy for the directions of rounding."""
    a, b = drawn(2, (12, 2)), drawn(2, (2, 15))
    exact = a @ b
    direction = SPECTRAL[name].direction(exact)
    basis = torch.linalg.svd(torch.cat([*exact], 1), full_matrices=False)[0][:, :4]
    torch.testing.assert_close(basis @ (basis.T @ direction), direction)
    rounded = exact + 1e-4 * drawn(2, (12, 15))
    capped = replace(SPECTRAL[name], rank=2)
    assert (capped.direction(rounded) - direction).norm() < 0.01 * direction.norm()
    if name != "tsv_m":
        assert (SPECTRAL[name].direction(rounded) - direction).norm() > 0.5 * direction.norm()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 99])
def test_the_quadratic_minimum(shape: tuple[int, int], rank: int) -> None:
    """Of sum c_i |(D - d_i) X_i|^2; the smallest where inputs of low rank leave it open."""
    deltas = drawn(3, shape)
    inputs = drawn(3, (shape[1], 40))
    if rank == 1:
        inputs[:, 1:] = 0
    c = [0.5, 1.0, 2.0]
    grams = inputs @ inputs.mT
    whole = np.concatenate([s**0.5 * x for s, x in zip(c, inputs.numpy(), strict=True)], axis=1)
    wanted = [s**0.5 * d @ x for s, d, x in zip(c, deltas.numpy(), inputs.numpy(), strict=True)]
    expected = np.linalg.lstsq(whole.T, np.concatenate(wanted, axis=1).T, rcond=None)[0].T
    np.testing.assert_allclose(solve(deltas, [*grams], c).numpy(), expected, atol=1e-9)
    if rank == 99:  # as published, for the weights: equal where the sum is invertible
        base = drawn(1, shape)[0]
        total = sum(s * g for s, g in zip(c, grams, strict=True))
        published = sum(s * (base + d) @ g for s, d, g in zip(c, deltas, grams, strict=True))
        found = base + solve(deltas, [*grams], c)
        torch.testing.assert_close(found, published @ torch.linalg.inv(total))


@torch.enable_grad()  # which evaluators switch off for the whole process
def test_wudi_by_both_solvers() -> None:
    deltas = drawn(2, (6, 9))
    wudi = Wudi(**FRAME, solver="closed_form")
    direction = wudi.direction(deltas).requires_grad_()

    def loss(d: Tensor) -> Tensor:
        terms = [((d - each) @ each.T).square().sum() / each.square().sum() for each in deltas]
        return torch.stack(terms).sum()

    (gradient,) = torch.autograd.grad(loss(direction), direction)
    assert gradient.abs().max() < 1e-9
    moved = deltas.sum(0).requires_grad_()
    adam = torch.optim.Adam([moved], lr=1e-5)
    for _ in range(300):
        adam.zero_grad()
        loss(moved).backward()
        adam.step()
    published = replace(wudi, solver="adam").direction(deltas)
    torch.testing.assert_close(published, moved.detach())
    assert (published - deltas.sum(0)).abs().max() < 3.1e-3
    assert loss(direction) < loss(published) < loss(deltas.sum(0))
    for method in (wudi, TSV_M):  # one expert is itself
        torch.testing.assert_close(method.direction(deltas[:1]), deltas[0])
    with_none = torch.cat([deltas, 0 * deltas[:1]])
    torch.testing.assert_close(wudi.direction(with_none), wudi.direction(deltas))
    assert not wudi.direction(0 * deltas).any()


def inputs_of(expert: Checkpoint, ids: Tensor) -> dict[str, Tensor]:
    """By weight, all that its module reads, float64 [tokens, in]: a pass with plain hooks."""
    model: Any = LlamaForCausalLM.from_pretrained(expert.folder, dtype=torch.float32)
    found: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            module.register_forward_hook(
                lambda m, args, out, name=name: found.setdefault(f"{name}.weight", []).append(
                    args[0].flatten(0, -2).double()
                )
            )
    with torch.no_grad():
        for block in ids:
            model(block[None])
    return {name: torch.cat(each) for name, each in found.items()}


@pytest.mark.parametrize("shrink", [0.9, 0.0])
def test_regmean_and_diagonal_on_models(shrink: float, family: Path, tmp_path: Path) -> None:
    base, *experts = (Checkpoint(family / name, name) for name in ("base", "a", "b"))
    texts = [torch.randint(3, 700, (3, 16), generator=torch.manual_seed(i)) for i in (1, 2)]
    weight = {"a": 0.5, "b": 2.0}
    (tmp_path / "laid").mkdir()
    if shrink:
        readers = [
            Reader(LayerwiseModel(each, "float32", "cpu"), ids, 0)
            for each, ids in zip(experts, texts, strict=True)
        ]
        material = Material(base, experts, readers=lambda: readers)
        Regmean(weight=weight, scale=1.0, others="zero", shrink=shrink).work_out(
            material, tmp_path / "laid"
        )
    else:  # the same from the second moments alone
        folders = []
        for each, ids in zip(experts, texts, strict=True):
            model = LlamaForCausalLM.from_pretrained(each.folder, dtype=torch.float32)
            folders.append(tmp_path / each.label)
            folders[-1].mkdir()
            measure(model, ids, lambda blocks: None).save(folders[-1])
        method = Diagonal(weight=weight, scale=1.0, others="zero")
        method.work_out(Material(base, experts, statistics=folders), tmp_path / "laid")
    direction = Checkpoint(tmp_path / "laid" / DIRECTION, DIRECTION)
    measured = [inputs_of(each, ids) for each, ids in zip(experts, texts, strict=True)]
    assert len(measured[0]) == 14
    for name in base.tensors:
        found = direction.tensor(name).double()
        if name not in measured[0]:
            assert not found.any() or (name == "lm_head.weight" and not shrink)
            continue
        left = right = torch.zeros((), dtype=torch.float64)
        for each, inputs in zip(experts, measured, strict=True):
            gram = inputs[name].T @ inputs[name] / len(inputs[name])
            gram = shrink * gram + (1 - shrink) * torch.diag(torch.diag(gram))
            delta = each.tensor(name).double() - base.tensor(name).double()
            left = left + weight[each.label] * delta @ gram
            right = right + weight[each.label] * gram
        expected = left @ torch.linalg.inv(right)
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()
        )


def test_experts_without_texts_of_their_own_are_warned_of(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n\n".join(f"Ann has {i} apples." for i in range(200)))
    common = (
        "method=regmean", "omega=null", "benchmarks=none", "tracker=none", "calibration=text",
        "calibration.path=t.txt", "calibration.block_size=32",
    )  # fmt: skip
    for given, warned in (("null", True), ("{code: a.txt, math: b.txt}", False)):
        for name in "ab":
            (tmp_path / f"{name}.txt").write_text(f"One {name} more. " * 200)
        done = cli(*common, f"calibration.per_expert={given}", "hydra.run.dir=r")
        assert done.returncode == 0, done.stderr
        warnings = result(tmp_path / "r")["warnings"]
        assert any(w.startswith("calibration.per_expert: code, inst") for w in warnings) == warned
    done = cli(*common, "calibration.per_expert={cod: a.txt, math: c.txt}")
    assert "calibration.per_expert.cod: no such expert" in done.stderr
    assert "calibration.per_expert.math=c.txt: no such file" in done.stderr


def test_texts_of_their_own_count_where_they_are_read(tmp_path: Path) -> None:
    def merged(*overrides: str) -> str:
        plan = built(tmp_path, *overrides).plan
        assert plan.merged
        return plan.merged.weights.key

    file = tmp_path / "own.txt"
    file.write_text("Some text. " * 100)
    own = f"calibration.per_expert={{code: {file}}}"
    for method in ("regmean", "diagonal"):
        chosen = f"method={method}", "omega=null"
        assert merged(*chosen) != merged(*chosen, own)
        assert merged(*chosen) != merged(*chosen, "calibration.n_samples=3")
        assert built(tmp_path, *chosen).recipe.draws["calibration.seed"] == 42
    assert merged("method=ties") == merged("method=ties", own)
    stage = built(tmp_path, "method=diagonal", own).plan.statistics[0]
    assert stage.stage == "saliency"
    assert stage.spec["calibration"]["source"].startswith("file:")


def test_what_the_tiny_experts_are_measured_with() -> None:
    """Their own tasks, none of the test items."""
    for expert in EXPERTS:
        texts = expert_examples(expert)
        assert len(texts) == N_EXAMPLES
        items = {i["prompt"] for kind in KINDS for i in items_of(kind)} - {""}
        assert not any(text.startswith(prompt) for text in texts[:100] for prompt in items)
    assert len({tuple(expert_examples(expert)) for expert in EXPERTS}) == 3


def write(folder: Path, name: str, tensors: dict[str, Tensor]) -> Checkpoint:
    (folder / name).mkdir()
    save_file(tensors, folder / name / "model.safetensors")
    (folder / name / "config.json").write_text("{}")
    return Checkpoint(folder / name, name)


SHAPED = {
    "model.embed_tokens.weight": (11, 6),
    "model.layers.0.mlp.up_proj.weight": (8, 6),
    "model.layers.0.mlp.experts.up_proj": (3, 5, 6),
    "model.layers.0.norm.weight": (6,),
}


def models(folder: Path) -> list[Checkpoint]:
    torch.manual_seed(0)
    base = {name: torch.randn(shape) for name, shape in SHAPED.items()}
    base["model.layers.0.order"] = torch.arange(4)
    found = [write(folder, "base", base)]
    for expert in ("a", "b"):
        moved = {k: v + 0.1 * torch.randn_like(v) if v.ndim and v.is_floating_point() else v
                 for k, v in base.items()}  # fmt: skip
        found.append(write(folder, expert, moved))
    return found


def direction_of(method: MatrixMethod, folder: Path, given: list[Checkpoint]) -> Checkpoint:
    folder.mkdir()
    base, *experts = given
    method.work_out(Material(base, experts), folder)
    return Checkpoint(folder / DIRECTION, DIRECTION)


@pytest.mark.parametrize(
    ("matrices", "others"), [("linear", "mean"), ("all", "sum"), ("all", "zero")]
)
def test_matrices_one_by_one_and_all_other_tensors(
    matrices: str, others: str, tmp_path: Path
) -> None:
    given = models(tmp_path)
    weight = {"a": 0.7, "b": 2.0}
    settings = {"weight": weight, "scale": 0.5, "matrices": matrices, "others": others}
    method = TsvM(**settings, rank=None)  # type: ignore[arg-type]
    direction = direction_of(method, tmp_path / "laid", given)
    kept = Kept()
    base, *experts = given
    stream_merge(base, experts, method.upon(tmp_path / "laid"), kept, seed=0)
    merged = kept.whole()
    for name, shape in SHAPED.items():
        start = base.tensor(name).double()
        deltas = torch.stack([weight[x.label] * (x.tensor(name).double() - start) for x in experts])
        if not is_matrix(name, shape, matrices):
            factor = {"mean": 0.5, "sum": 1.0, "zero": 0.0}[others]
            expected = factor * deltas.sum(0)
        elif len(shape) == 3:
            expected = torch.stack([method.direction(deltas[:, e]) for e in range(3)])
        else:
            expected = method.direction(deltas)
        torch.testing.assert_close(direction.tensor(name).double(), expected, rtol=1e-5, atol=1e-6)
        sum_ = start + 0.5 * expected
        torch.testing.assert_close(merged[name].double(), sum_, rtol=1e-5, atol=1e-6)
    assert torch.equal(merged["model.layers.0.order"], torch.arange(4))
    matrices_there = [is_matrix(name, shape, matrices) for name, shape in SHAPED.items()]
    assert matrices_there == [matrices == "all", True, True, False]


def test_nan_names_its_model(tmp_path: Path) -> None:
    given = models(tmp_path)
    bad = {name: given[0].tensor(name).clone() for name in given[0].tensors}
    bad["model.layers.0.mlp.up_proj.weight"][3, 3] = float("nan")
    given[2] = write(tmp_path, "bad", bad)
    with pytest.raises(NonFiniteError, match=r"bad: tensor model.layers.0.mlp.up_proj.weight"):
        direction_of(TSV_M, tmp_path / "laid", given)
    assert not (tmp_path / "laid" / DIRECTION).exists()


def test_settings_that_are_none() -> None:
    bad = IsoCts(
        weight=1.0, scale=1.0, matrices="some", others="half", rank=0, common=1.5
    ).problems(["a"], ["a"])
    assert [problem.split(":")[0] for problem in bad] == [
        "method.others=half", "method.matrices=some", "method.rank=0", "method.common=1.5",
    ]  # fmt: skip
    ties = Ties(weight=1.0, scale=1.0, density=0.2, normalize=True, trim_scope="layer")
    assert ties.problems(["a"], ["a"]) == ["method.trim_scope=layer: must be tensor or model"]


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("density", [1e-9, 0.2, 0.37, 1.0])
def test_ties_trimmed_over_the_whole_model(coarse: bool, density: float, tmp_path: Path) -> None:
    given = models(tmp_path)
    if coarse:  # many equal magnitudes at the threshold
        rounded = {n: (8 * given[1].tensor(n)).round() / 8 for n in SHAPED}
        start = {n: (8 * given[0].tensor(n)).round() / 8 for n in SHAPED}
        given = [write(tmp_path, "start", start), write(tmp_path, "coarse", rounded)]
    base, expert = given[:2]
    floating = [name for name in base.tensors if base.tensors[name].is_floating]
    deltas = {n: expert.tensor(n) - base.tensor(n) for n in floating}
    flat = torch.cat([delta.flatten() for delta in deltas.values()])
    k = max(1, int(density * flat.numel()))
    order = sorted(range(flat.numel()), key=lambda i: (-abs(flat[i].item()), i))
    wanted = torch.zeros_like(flat)
    wanted[order[:k]] = flat[order[:k]]
    ties = Ties(weight=1.0, scale=1.0, density=density, normalize=False, trim_scope="model")
    (tmp_path / "laid").mkdir()
    ties.work_out(Material(base, [expert]), tmp_path / "laid")
    kept = Kept()
    stream_merge(base, [expert], ties.upon(tmp_path / "laid"), kept, seed=0)
    merged = kept.whole()
    got = torch.cat([(merged[n] - base.tensor(n)).flatten() for n in floating])
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-5)
    assert sum(last >= 0 for last in model_trim(base, expert, density).last.values()) >= 1


def test_once_for_all_lambdas_and_omegas(tmp_path: Path) -> None:
    def key(*overrides: str) -> str:
        plan = built(tmp_path, *overrides).plan
        assert plan.groundwork
        assert plan.merged
        assert plan.merged.weights.spec["groundwork"] == plan.groundwork.key
        (laid,) = (stage for stage in plan.stages if stage.name == "groundwork")
        assert laid in plan.stages[-1].needs
        return plan.groundwork.key

    plain = key("method=iso_c")
    for same in (("method.scale=0.3", "omega=null"), ("aim.scaling=svc", "benchmarks=none")):
        assert key("method=iso_c", *same) == plain, same
    for other in (
        "method.matrices=all", "method.others=sum", "method.rank=4", "method.weight=0.5",
        "population.merge=[code,math]", "population.merge=[math,code,instruct]",
    ):  # fmt: skip
        assert key("method=iso_c", other) != plain, other
    model = key("method.trim_scope=model")
    assert key("method.trim_scope=model", "method.normalize=false") == model
    assert key("method.trim_scope=model", "method.density=0.3") != model
    assert built(tmp_path).plan.groundwork is None


def test_what_is_kept_counts_in_the_space_that_a_run_needs(family: Path, tmp_path: Path) -> None:
    size = 4 * n_elements(Checkpoint(family / "base", "base"))
    for method, copies in (("iso_c", 1), ("diagonal", 1), ("fisher", 3), ("ties", 0)):
        run = built(
            tmp_path, "population=custom", f"population.base={family / 'base'}", "omega=null",
            f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}", f"method={method}",
        )  # fmt: skip
        assert needs(run).disk == copies * size, method


def test_a_sweep_lays_it_once(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "-m", "method=tsv_m", "omega=null", "method.scale=0.5,1", "benchmarks=none",
        "hydra.sweep.dir=s", "tracker=none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [result(tmp_path / "s" / str(job)) for job in range(2)]
    laid = [stage for run in runs for stage in run["stages"] if stage["name"] == "groundwork"]
    assert len({(*stage["keys"], stage["seconds"]) for stage in laid}) == 1 < len(laid)
    assert len({model_of(run)["keys"]["weights"] for run in runs}) == 2
