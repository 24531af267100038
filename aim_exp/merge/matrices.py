"""Methods that need whole matrices: `base + scale * D`, D worked out once for a whole sweep.

D is a checkpoint in float32 with base's tensors. It depends on the experts and the settings, but
not on `scale`, nor on how the merge is relaxed: those cost a stream each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from aim_exp.checkpoint.names import layer_of
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.errors import FLOAT32, OneOf, Within
from aim_exp.merge.method import Kernel, MergeMethod, WeightedMethod
from aim_exp.tensors.inputs import SPARE, TensorInputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from aim_exp.merge.groundwork import Material
    from aim_exp.tensors.sink import Sink

MatrixOf = Callable[[TensorInputs, int | None], "Tensor | None"]
"""D, float64 [out, in], of a tensor that is a matrix, or of its part of that number."""

DIRECTION = "direction"
Matrices = Annotated[str, OneOf("linear", "all")]


@dataclass(frozen=True, kw_only=True)
class DirectedMethod(WeightedMethod):
    """The frame: `base + scale * D`."""

    from_base: ClassVar[bool] = True
    keeps_direction: ClassVar[bool] = True
    scale: Annotated[float, FLOAT32]

    @abstractmethod
    def write(self, material: Material, sink: Sink) -> None:
        """All of D."""

    def groundwork(self, merged: Sequence[str]) -> dict[str, Any] | None:
        """All settings but the scale."""
        return {key: value for key, value in self.spec(merged).items() if key != "scale"}

    def upon(self, folder: Path) -> MergeMethod:
        """Along D."""
        return _Along(scale=self.scale, direction=Checkpoint(folder / DIRECTION, DIRECTION))

    def work_out(self, material: Material, folder: Path) -> None:
        """D of every tensor, each on one thread."""
        from aim_exp.checkpoint.writer import CheckpointWriter

        with CheckpointWriter(folder / DIRECTION, material.base, "float32") as sink:
            self.write(material, sink)


@dataclass(frozen=True, kw_only=True)
class MatrixMethod(DirectedMethod):
    """By whole matrices, in float64.

    Where a tensor holds a matrix for each expert of a layer, each is one by itself. In tensors
    that are no matrices D is the mean of the w_i d_i, their sum, or zero (`others`).
    """

    others: Annotated[str, OneOf("mean", "sum", "zero")]

    def write_tensors(
        self, material: Material, sink: Sink, names: Iterable[str], matrix: MatrixOf
    ) -> None:
        """D of the tensors `names`: by `matrix`, or what `others` says where that is None."""

        def work(inputs: TensorInputs) -> None:
            if not inputs.base.is_floating_point() or not inputs.base.numel():
                return
            inputs.check()
            fused = inputs.base.ndim == 3
            parts = [
                matrix(inputs, part) for part in (range(len(inputs.base)) if fused else [None])
            ]
            if any(part is None for part in parts):
                self._write_other(inputs, sink)
                return
            for index, part in enumerate(parts):
                assert part is not None
                rows = slice(index, index + 1) if fused else slice(0, len(part))
                sink.write(inputs.name, rows, (part[None] if fused else part).float())

        for _ in material.over_tensors(work, names):
            pass

    def deltas(
        self, inputs: TensorInputs, part: int | None = None, *, weighted: bool = True
    ) -> Tensor:
        """The deltas of a matrix, float64 [T, out, in]; of the one numbered `part`."""
        import torch

        index = ... if part is None else part
        base = inputs.base[index].double()
        deltas = torch.stack([x[index].double() - base for x in inputs.experts])
        if weighted:
            for delta, weight in zip(deltas, self.weights_in(inputs), strict=True):
                delta.mul_(weight)
        return deltas

    def _write_other(self, inputs: TensorInputs, sink: Sink) -> None:
        weights = self.weights_in(inputs)
        divisor = len(weights) if self.others == "mean" else 1
        for rows in inputs.blocks():
            total = inputs.scratch("others", inputs.base[rows].shape).zero_()
            for index, weight in enumerate(weights if self.others != "zero" else ()):
                total.add_(inputs.delta(index, rows, SPARE), alpha=weight)
            sink.write(inputs.name, rows, total.div_(divisor))


@dataclass(frozen=True, kw_only=True)
class DataFree(MatrixMethod):
    """By the deltas alone.

    `matrices` are those with two axes in a layer (`linear`: neither embeddings nor the head), or
    all with two axes.
    """

    matrices: Matrices

    @abstractmethod
    def direction(self, deltas: Tensor) -> Tensor:
        """D, float64 [out, in], of the weighted deltas, float64 [T, out, in]."""

    def write(self, material: Material, sink: Sink) -> None:
        """Matrix by matrix."""

        def matrix(inputs: TensorInputs, part: int | None) -> Tensor | None:
            if not is_matrix(inputs.name, inputs.base.shape, self.matrices):
                return None
            deltas, weights = self.deltas(inputs, part), self.weights_in(inputs)
            for index, expert in enumerate(material.experts):
                exact = expert.added(inputs.name, material.base)
                if exact is not None:  # of its rank: base's rounding is not in it
                    deltas[index] = weights[index] * exact.to(deltas)
            return self.direction(deltas)

        self.write_tensors(material, sink, material.base.tensors, matrix)


@dataclass(frozen=True, kw_only=True)
class SpectralMethod(DataFree):
    """By singular value decompositions; directions that are zero to float64 have no part.

    `rank` is that of each expert's delta where it is an adapter that was merged in: rounding
    makes it full, and the methods would give noise the weight of what was learnt. None: full.
    """

    rank: Annotated[int | None, Within(1)]


@dataclass(frozen=True, kw_only=True)
class TsvM(SpectralMethod):
    """`D = U' S V'^T`: task singular vectors made orthogonal (Gargiulo et al. 2025, 2412.00081).

    The top k/T triplets of each delta side by side, k the shorter side (at least one); U' and V'
    are the nearest matrices with orthonormal columns.
    """

    def direction(self, deltas: Tensor) -> Tensor:
        """As defined."""
        from aim_exp.merge.spectral import made_orthogonal, triplets

        size = self.rank or max(1, min(deltas.shape[1:]) // len(deltas))
        return made_orthogonal([triplets(delta, size) for delta in deltas])


@dataclass(frozen=True, kw_only=True)
class IsoC(SpectralMethod):
    """`D = mean(S) U V^T` of `sum(w_i d_i) = U S V^T` (Marczak et al. 2025, arXiv 2502.04959)."""

    def direction(self, deltas: Tensor) -> Tensor:
        """As defined."""
        from aim_exp.merge.spectral import isotropic

        return isotropic(deltas.sum(0), self.rank and self.rank * len(deltas))


@dataclass(frozen=True, kw_only=True)
class IsoCts(SpectralMethod):
    """Iso-C with room for what only one expert does (Marczak et al. 2025, arXiv 2502.04959).

    Of k directions the share `common` is the sum's, the rest in equal parts that of each delta
    without its projection on those; all made orthogonal, all with the mean singular value.
    """

    common: Annotated[float, Within(0, 1)]

    def direction(self, deltas: Tensor) -> Tensor:
        """As defined."""
        from aim_exp.merge.spectral import made_orthogonal, triplets

        count = len(deltas)
        side = min(*deltas.shape[1:], *([self.rank * count] if self.rank else []))
        own = min(round((side - int(self.common * side)) / count), side // count)
        shared = triplets(deltas.sum(0), side - own * count)
        u = shared[0]
        rests = [(delta - u @ (u.T @ delta), delta.norm().item()) for delta in deltas]
        tops = [*(triplets(rest, own, size) for rest, size in rests), shared]
        return made_orthogonal(tops, isotropic=True)


@dataclass(frozen=True, kw_only=True)
class _Along(MergeMethod):
    """`base + scale * D`, D read from where it was left."""

    from_base: ClassVar[bool] = True
    scale: float
    direction: Checkpoint

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """Rows of D, scaled."""
        direction = self.direction.tensor(inputs.name)

        def merge(rows: slice) -> Tensor:
            block = direction[rows]
            return inputs.scratch(DIRECTION, block.shape).copy_(block).mul_(self.scale)

        return merge


def is_matrix(name: str, shape: Sequence[int], matrices: str) -> bool:
    """Whether a tensor is a matrix: see `DataFree`."""
    if len(shape) == 3:
        return ".experts." in name
    return len(shape) == 2 and (matrices == "all" or layer_of(name) is not None)
