"""`python -m aim_exp.diff A B --base C`: how far two checkpoints differ, as diff(1) would say.

It settles whether a merge made again is the one that was published. Tensors are read in
blocks of rows, so memory does not grow with the models.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch
from rich import box
from rich.table import Table
from rich.text import Text
from torch import Tensor

from aim_exp.aim.dose import Dose
from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.identity import folder_of
from aim_exp.checkpoint.names import kind_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.console import console, error_console, print_whole, progress
from aim_exp.errors import AimError
from aim_exp.tensors.blocks import add_by_channel, row_blocks

EQUAL, DIFFERENT, TROUBLE = 0, 1, 2
"""Exit codes, those of diff(1)."""
NOTHING = "–"
DOSES = ("norm", "mean r", "outputs")
EPILOG = """\
A, B and C are folders or hub ids (org/name@revision). Columns:
  equal     share of the elements that have the same value in A and B
  distance  ||A-B|| / ||B-C||: 0 is the same, about 1 another merge; without --base, C is 0
  cosine    between A-C and B-C
  norm      ||A-C|| / ||B-C||: how much of a merge B a relaxation A of it leaves
  mean r    the same by channel, averaged; with --saliency
  outputs   the same of the change of outputs on base's inputs; with --saliency
exit code: 0 equal, 1 different, 2 trouble
"""


@dataclass
class Difference:
    """Sums over the elements of one or more tensors that A and B share, in float64."""

    tensors: int = 0
    elements: int = 0
    equal: int = 0
    distance: float = 0.0
    """(A-B)^2, summed."""
    delta_a: float = 0.0
    """(A-C)^2, summed."""
    delta_b: float = 0.0
    product: float = 0.0
    """(A-C)(B-C), summed."""
    outputs_a: float = 0.0
    """q (A-C)^2, summed, with q = E x^2 of the input channel."""
    outputs_b: float = 0.0
    channels: int = 0
    """Input channels in which B is not C."""
    sum_r: float = 0.0
    """Of (A-C) / (B-C), by least squares in each of them."""

    def __add__(self, other: Difference) -> Difference:
        return Difference(*(x + y for x, y in zip(astuple(self), astuple(other), strict=True)))

    @property
    def equal_share(self) -> float:
        """The share of equal elements; 1 where there are none."""
        return self.equal / self.elements if self.elements else 1.0

    @property
    def relative(self) -> float | None:
        """||A-B|| / ||B-C||; None where B is C and A is not."""
        if self.distance == 0:
            return 0.0
        return math.sqrt(self.distance / self.delta_b) if self.delta_b else None

    @property
    def dose(self) -> Dose:
        """What A, a relaxation of the merge B, leaves of it; None where that is not known."""
        return Dose(
            mean_r=self.sum_r / self.channels if self.channels else None,
            norm=math.sqrt(self.delta_a / self.delta_b) if self.delta_b else None,
            outputs=math.sqrt(self.outputs_a / self.outputs_b) if self.outputs_b else None,
        )

    @property
    def cosine(self) -> float | None:
        """Between A-C and B-C; None where one of them is 0."""
        norms = math.sqrt(self.delta_a) * math.sqrt(self.delta_b)
        return self.product / norms if norms else None


@dataclass
class Comparison:
    """Two checkpoints: a `Difference` per tensor, and what could not be compared."""

    tensors: dict[str, Difference] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    """A line for each tensor that one lacks or has in another shape."""

    @property
    def total(self) -> Difference:
        """Over all tensors."""
        return sum(self.tensors.values(), Difference())

    @property
    def same(self) -> bool:
        """Whether every tensor is there twice, with equal values."""
        return not self.unmatched and self.total.equal == self.total.elements

    def by_kind(self) -> dict[str, Difference]:
        """Summed over layers: `q_proj`, `embed_tokens`, ..."""
        kinds: dict[str, Difference] = {}
        for name, difference in self.tensors.items():
            kinds[kind_of(name)] = kinds.get(kind_of(name), Difference()) + difference
        return kinds


def compare_checkpoints(
    a: Checkpoint, b: Checkpoint, base: Checkpoint | None, saliency: Saliency | None = None
) -> Comparison:
    """`a` and `b`, as deltas to `base` (None: to zero), with what `saliency` says of its inputs.

    CheckpointError if unreadable.
    """
    models = [a, b, *([base] if base else [])]
    names = list(dict.fromkeys(name for model in (a, b) for name in model.tensors))
    comparison = Comparison()
    with progress("Comparing", len(names)) as advance:
        for name in names:
            problem = _misfit(name, models)
            if problem:
                comparison.unmatched.append(problem)
            else:
                source = saliency and base and saliency.source(name)
                axis, q = None, None
                if saliency and source:
                    axis, q = saliency.axes[source], saliency.moments[source]
                tensors = (each.tensor(name) for each in models)
                comparison.tensors[name] = compare_tensors(*tensors, axis=axis, q=q)
            advance(1)
    return comparison


def compare_tensors(
    a: Tensor,
    b: Tensor,
    base: Tensor | None = None,
    *,
    axis: int | None = None,
    q: Tensor | None = None,
) -> Difference:
    """Tensors of one shape, of any dtypes; equal is by value, and NaN equals NaN.

    Where `q` has E x^2 over the channels of the input axis `axis`, with the sums by channel.
    """
    difference = Difference(tensors=1, elements=a.numel())
    sums = torch.zeros(4, 1 if q is None else len(q), dtype=torch.float64)
    for rows in row_blocks(a.shape):
        same = (a[rows] == b[rows]) | (a[rows].isnan() & b[rows].isnan())
        difference.equal += int(same.sum())
        x, y = a[rows].double(), b[rows].double()
        if base is not None:
            start = base[rows].double()
            x, y = x - start, y - start
        for own, values in zip(sums, ((x - y).square_(), x * x, y * y, x * y), strict=True):
            add_by_channel(own, values, rows, axis)
    difference.distance, difference.delta_a, difference.delta_b, difference.product = sums.sum(
        1
    ).tolist()
    if q is not None:
        _, squares_a, squares_b, products = sums
        r = products[squares_b > 0] / squares_b[squares_b > 0]
        difference.outputs_a = (q * squares_a).sum().item()
        difference.outputs_b = (q * squares_b).sum().item()
        difference.channels, difference.sum_r = len(r), r.sum().item()
    return difference


def _misfit(name: str, models: Sequence[Checkpoint]) -> str | None:
    """Why a tensor cannot be compared, in a line."""
    missing = [model.label for model in models if name not in model.tensors]
    if missing:
        return f"{name}: not in {', '.join(missing)}"
    shapes = [list(model.tensors[name].shape) for model in models]
    if any(shape != shapes[0] for shape in shapes):
        each = (f"{model.label} {shape}" for model, shape in zip(models, shapes, strict=True))
        return f"{name}: shapes differ: {', '.join(each)}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        memo = options.cache_dir / "digests"
        a, b, base = (
            Checkpoint(folder_of(source, label, label, memo), label) if source else None
            for label, source in (("A", options.a), ("B", options.b), ("base", options.base))
        )
        assert a
        assert b
        saliency = Saliency.load(options.saliency) if options.saliency else None
        comparison = compare_checkpoints(a, b, base, saliency)
    except AimError as error:
        error_console.print(Text(f"error: {error}"), soft_wrap=True)
        return TROUBLE
    _show(comparison, by_tensor=options.tensors)
    return EQUAL if comparison.same else DIFFERENT


def _show(comparison: Comparison, *, by_tensor: bool) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim")
    table.add_column("tensor" if by_tensor else "kind", no_wrap=True)
    for heading in (*("tensors", "elements", "equal", "distance", "cosine"), *DOSES):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, difference in (comparison.tensors if by_tensor else comparison.by_kind()).items():
        table.add_row(name, *_cells(difference))
    table.add_section()
    table.add_row("total", *_cells(comparison.total), style="bold")
    print_whole(console, table)
    for line in comparison.unmatched:
        console.print(Text(f"not compared: {line}", style="yellow"), soft_wrap=True)
    console.print("equal" if comparison.same else "different")


def _cells(difference: Difference) -> Iterator[str]:
    yield str(difference.tensors)
    yield f"{difference.elements:,}"
    # Rounded down: only what is equal throughout is shown as 100.
    yield f"{math.floor(10_000 * difference.equal_share) / 100:.2f}%"
    dose = difference.dose
    for value in (difference.relative, difference.cosine, dose.norm, dose.mean_r, dose.outputs):
        yield NOTHING if value is None else f"{value:.4g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.diff",
        description="Compare two checkpoints, tensor by tensor, by kind of module.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A")
    parser.add_argument("b", metavar="B")
    parser.add_argument("--base", metavar="C", help="what A and B were made from")
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        type=Path,
        default=Path("outputs/cache"),
        help="where pickled weights are converted to (default: outputs/cache)",
    )
    parser.add_argument(
        "--saliency",
        metavar="DIR",
        type=Path,
        help="what was measured of C's inputs: the folder that result.json calls saliency",
    )
    parser.add_argument("--tensors", action="store_true", help="a line per tensor")
    return parser


if __name__ == "__main__":
    sys.exit(main())
