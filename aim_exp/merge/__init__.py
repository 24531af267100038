"""Merge methods: a definition each (its values: `conf/method/NAME.yaml`), tensors in, tensor out.

Defining a method imports no torch; its arithmetic does, when a merge begins.
"""

from collections.abc import Mapping

from aim_exp.merge.aligned import CoreTies, KnotsTies
from aim_exp.merge.angles import Karcher, ModelStock, NuSlerp, Slerp
from aim_exp.merge.average import Linear
from aim_exp.merge.consensus import ConsensusTa, Sce
from aim_exp.merge.fisher import Fisher
from aim_exp.merge.given import Given, NoMerge
from aim_exp.merge.matrices import IsoC, IsoCts, TsvM
from aim_exp.merge.method import Kernel as Kernel
from aim_exp.merge.method import MergeMethod as MergeMethod
from aim_exp.merge.quadratic import Diagonal, Regmean, Wudi
from aim_exp.merge.task_vectors import (
    Breadcrumbs,
    BreadcrumbsTies,
    DareLinear,
    DareTies,
    Della,
    DellaLinear,
    TaskArithmetic,
    Ties,
)
from aim_exp.merge.widen import Widen
from aim_exp.tensors.inputs import TensorInputs as TensorInputs

METHODS: Mapping[str, type[MergeMethod]] = {
    "linear": Linear,
    "task_arithmetic": TaskArithmetic,
    "ties": Ties,
    "dare_linear": DareLinear,
    "dare_ties": DareTies,
    "breadcrumbs": Breadcrumbs,
    "breadcrumbs_ties": BreadcrumbsTies,
    "della_linear": DellaLinear,
    "della": Della,
    "consensus_ta": ConsensusTa,
    "sce": Sce,
    "model_stock": ModelStock,
    "slerp": Slerp,
    "nuslerp": NuSlerp,
    "karcher": Karcher,
    "tsv_m": TsvM,
    "iso_c": IsoC,
    "iso_cts": IsoCts,
    "knots_ties": KnotsTies,
    "core_ties": CoreTies,
    "regmean": Regmean,
    "diagonal": Diagonal,
    "wudi": Wudi,
    "fisher": Fisher,
    "widen": Widen,
    "checkpoint": Given,
    "none": NoMerge,
}
"""By their option of the group `method`."""
