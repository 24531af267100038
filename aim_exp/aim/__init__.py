"""Activation-Informed Merging: the relaxation, its calibration texts, the saliency they measure."""

from aim_exp.aim.relaxation import relax

__all__ = ["relax"]
