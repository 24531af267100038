"""WIDEN: weights disentangled into magnitude and direction (Yu et al. 2024, arXiv 2408.03092).

Each column of a matrix (for token embeddings each row, a token) has a magnitude, its L2 norm,
and a direction. How far fine-tuning moved either, ranked within the expert, decides how much of
the expert's delta that column takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from aim_exp.errors import OneOf, Within
from aim_exp.merge.method import Kernel, MergeMethod
from aim_exp.tensors.inputs import TensorInputs

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


@dataclass(frozen=True, kw_only=True)
class Widen(MergeMethod):
    """`base + sum_i weight_ij d_ij` per column j, weights from ranks over the columns.

    An expert's rank above `above_average_value_ratio` times its mean rank sets the column's
    score to `score_calibration_value`; otherwise the score is the softmax over the experts.
    `compute_dtype` is that of magnitudes, directions and differences: the published tables
    come from bfloat16, in which so few differences are distinct that position decides ranks.
    """

    above_average_value_ratio: Annotated[float, Within(0)]
    score_calibration_value: Annotated[float, Within(0)]
    compute_dtype: Annotated[str, OneOf("float32", "bfloat16", "float16")]

    def prepare(self, inputs: TensorInputs) -> Kernel:
        """The weight of each expert in each column; then any rows."""
        from aim_exp.merge.disentangle import column_weights

        if not inputs.base.numel():
            return inputs.base_rows
        by_token = inputs.name.endswith(EMBEDDINGS) and inputs.base.ndim == 2
        weights = column_weights(
            inputs,
            by_token=by_token,
            dtype=self.compute_dtype,
            ratio=self.above_average_value_ratio,
            calibrated=self.score_calibration_value,
        )
        elementwise = inputs.base.ndim == 1

        def merge(rows: slice) -> Tensor:
            base = inputs.base_rows(rows)
            merged = base.clone()
            for index, weight in enumerate(weights):
                delta = inputs.rows(index, rows).sub_(base)
                if elementwise:
                    merged += delta * weight[rows]
                elif by_token:
                    merged += delta * weight[rows, None]
                else:  # columns of what has more than two axes are those of its flat form
                    merged += (delta.flatten(1) * weight).view(delta.shape)
            return merged

        return merge
