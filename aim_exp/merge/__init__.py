"""Merge methods: a definition each (`conf/method/NAME.yaml` names it), tensors in, tensor out.

Defining a method imports no torch; its arithmetic does, when a merge begins.
"""

from aim_exp.merge.average import Linear
from aim_exp.merge.given import Given, NoMerge
from aim_exp.merge.method import Kernel, MergeMethod
from aim_exp.merge.task_vectors import DareLinear, DareTies, TaskArithmetic, Ties
from aim_exp.merge.widen import Widen
from aim_exp.tensors.inputs import TensorInputs

__all__ = [
    "DareLinear",
    "DareTies",
    "Given",
    "Kernel",
    "Linear",
    "MergeMethod",
    "NoMerge",
    "TaskArithmetic",
    "TensorInputs",
    "Ties",
    "Widen",
]
