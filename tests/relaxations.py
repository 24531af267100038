"""The settings of AIM as the paper defines it."""

from aim_exp.aim.settings import AimSettings

SETTINGS = AimSettings(
    statistic="mean_abs",
    column_norm=False,
    saliency="base",
    normalise="max",
    scaling="identity",
    dose=None,
    exclude=(),
    tied_head="keep",
    omega_by=None,
)
