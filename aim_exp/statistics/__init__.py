"""Whether a difference is more than luck: over items, over replicates, and how small it may be.

`paired` compares two models on the same items, `replicates` two arms over the replicates of a
study, `front` asks who is on a front, `power` what could have been seen. Pure: numbers in,
numbers out.
"""

from aim_exp.statistics.front import NoiseGain, noise_gain, nondominated_probability
from aim_exp.statistics.paired import (
    LEVEL,
    MOST_SWAPS,
    RESAMPLES,
    ROUNDING,
    SEED,
    Floats,
    PairedTest,
    Stratum,
    bootstrap_scores,
    can_reject,
    clustered_stderr,
    holm,
    mcnemar,
    resampling_test,
    swapped_scores,
    swaps_for,
)
from aim_exp.statistics.power import DISCORDANCES, detectable_at_discordance, smallest_detectable
from aim_exp.statistics.replicates import (
    MIN_REPLICATES,
    Conclusion,
    Design,
    Equivalence,
    ReplicatedDifference,
    ReplicateTest,
    compare_replicates,
    equivalence,
)

__all__ = [
    "DISCORDANCES",
    "LEVEL",
    "MIN_REPLICATES",
    "MOST_SWAPS",
    "RESAMPLES",
    "ROUNDING",
    "SEED",
    "Conclusion",
    "Design",
    "Equivalence",
    "Floats",
    "NoiseGain",
    "PairedTest",
    "ReplicateTest",
    "ReplicatedDifference",
    "Stratum",
    "bootstrap_scores",
    "can_reject",
    "clustered_stderr",
    "compare_replicates",
    "detectable_at_discordance",
    "equivalence",
    "holm",
    "mcnemar",
    "noise_gain",
    "nondominated_probability",
    "resampling_test",
    "smallest_detectable",
    "swapped_scores",
    "swaps_for",
]
