"""Merge methods: a definition each (`conf/method/NAME.yaml` names it), tensors in, tensor out.

Defining a method imports no torch; its arithmetic does, when a merge begins.
"""

from aim_exp.merge.aligned import CoreTies, KnotsTies
from aim_exp.merge.angles import Karcher, ModelStock, NuSlerp, Slerp
from aim_exp.merge.average import Linear
from aim_exp.merge.consensus import ConsensusTa, Sce
from aim_exp.merge.fisher import Fisher
from aim_exp.merge.given import Given, NoMerge
from aim_exp.merge.matrices import IsoC, IsoCts, TsvM
from aim_exp.merge.method import Kernel, MergeMethod
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
from aim_exp.tensors.inputs import TensorInputs

__all__ = [
    "Breadcrumbs",
    "BreadcrumbsTies",
    "ConsensusTa",
    "CoreTies",
    "DareLinear",
    "DareTies",
    "Della",
    "DellaLinear",
    "Diagonal",
    "Fisher",
    "Given",
    "IsoC",
    "IsoCts",
    "Karcher",
    "Kernel",
    "KnotsTies",
    "Linear",
    "MergeMethod",
    "ModelStock",
    "NoMerge",
    "NuSlerp",
    "Regmean",
    "Sce",
    "Slerp",
    "TaskArithmetic",
    "TensorInputs",
    "Ties",
    "TsvM",
    "Widen",
    "Wudi",
]
