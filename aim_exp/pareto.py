"""The Pareto front and its hypervolume, all objectives maximised (pymoo computes)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aim_exp.errors import AimError, NonFiniteError

FLOAT_NOISE = 1e-12
"""A point that adds less than this share of its own box adds rounding, not volume."""
MOST_OBJECTIVES = 31
"""More than these moocore does not take."""
MANY = 10
"""Members from which on volumes one by one are quicker than 2^n boxes for all points at once."""


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Which of `points` [n, d] no other point dominates; equal points are kept together."""
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    scores = _scores(points)
    mask = np.zeros(len(scores), dtype=bool)
    if len(scores):
        mask[NonDominatedSorting().do(-scores, only_non_dominated_front=True)] = True
    return mask


def hypervolume(points: ArrayLike, reference: ArrayLike = 0.0) -> float:
    """The exact d-dimensional volume between `reference` and `points` [n, d].

    `reference` is one number or [d], at most 1; a point that does not exceed it in every
    objective adds nothing. No points: 0. Raises AimError for more than `MOST_OBJECTIVES`.
    """
    from pymoo.indicators.hv import HV

    scores = _scores(points)
    if not scores.size:
        return 0.0
    corner = _corner(reference, scores.shape[1])
    volume = HV(ref_point=-corner)(-scores)
    assert volume is not None
    return float(volume)


def hypervolume_difference(
    point: ArrayLike, population: ArrayLike, reference: ArrayLike = 0.0
) -> float:
    """The volume that `point` [d] adds to `population` [n, d], `HV(P + {x}) - HV(P)`.

    Computed as the point's own box less what the population covers of it: one volume, of
    fewer points.
    """
    newcomer = _scores(np.atleast_2d(np.asarray(point, dtype=float)))
    members = np.asarray(population, dtype=float)
    covered = np.minimum(_scores(members), newcomer) if members.size else members
    corner = _corner(reference, newcomer.shape[1])
    box = float(np.prod(np.maximum(newcomer - corner, 0.0)))
    difference = box - hypervolume(covered, corner)
    return difference if difference >= FLOAT_NOISE * box else 0.0


def hypervolume_gain(point: ArrayLike, population: ArrayLike, reference: ArrayLike = 0.0) -> float:
    """`(HV(P + {x}) - HV(P)) ** (1/d)`: the d-th root of the volume gained.

    `point` is [d] and `population` [n, d], scores in [0, 1]; the definition behind the
    published table (Nobari et al. 2025). Raises AimError for scores outside [0, 1], for a
    reference above 1 and for more than `MOST_OBJECTIVES`, NonFiniteError for NaN or infinity.
    """
    return hypervolume_difference(point, population, reference) ** (1 / np.size(point))


def hypervolume_gains(
    points: ArrayLike, populations: ArrayLike, reference: ArrayLike = 0.0
) -> NDArray[np.float64]:
    """`hypervolume_gain` of many points at once, [m].

    `points` are [m, d], `populations` [m, n, d] or, where all have the same, [1, n, d].
    """
    newcomers, given = _scores(points), np.asarray(populations, dtype=float)
    size, d = given.shape[1:]
    _scores(given.reshape(-1, d))
    members = np.broadcast_to(given, (len(newcomers), size, d))
    if size >= MANY:
        pairs = zip(newcomers, members, strict=True)
        return np.array([hypervolume_gain(point, own, reference) for point, own in pairs])
    corner = _corner(reference, d)
    added = _added(newcomers, np.moveaxis(members, 1, 0), corner)
    boxes = np.prod(np.maximum(newcomers - corner, 0.0), axis=1)
    return np.where(added >= FLOAT_NOISE * boxes, added, 0.0) ** (1 / d)


def _added(
    points: NDArray[np.float64], members: NDArray[np.float64], corner: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The volume [m] that each of `points` [m, d] adds to its `members` [n, m, d].

    What it adds without the last of them, less what of this the last one covers: as much as
    the corner that the two share would add.
    """
    if not len(members):
        return np.prod(np.maximum(points - corner, 0.0), axis=1)
    shared = np.minimum(points, members[-1])
    return _added(points, members[:-1], corner) - _added(shared, members[:-1], corner)


def _corner(reference: ArrayLike, d: int) -> NDArray[np.float64]:
    """The reference point as [d]."""
    corner = np.broadcast_to(np.asarray(reference, dtype=float), (d,))
    if not np.isfinite(corner).all():
        raise NonFiniteError(f"reference={reference}: must be finite")
    if corner.max(initial=0.0) > 1:
        raise AimError(f"reference={reference}: scores lie in [0, 1], none exceeds it; at most 1")
    if d > MOST_OBJECTIVES:
        raise AimError(f"{d} objectives: a hypervolume is of at most {MOST_OBJECTIVES}")
    return corner


def _scores(points: ArrayLike) -> NDArray[np.float64]:
    """`points` as [n, d] floats; moocore hangs or crashes on NaN, so it stops here."""
    scores = np.asarray(points, dtype=float)
    if scores.size and scores.ndim != 2:
        raise AimError(f"expected points as [n, d], not of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise NonFiniteError("a score is NaN or infinite: there is no front with it")
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise AimError(
            f"scores lie in [0, 1], these in [{scores.min():g}, {scores.max():g}]; "
            "divide percentages by 100"
        )
    return scores
