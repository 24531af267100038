"""The recipe in numbers: what base and experts are trained on, for how long, how fast.

Tried on seeds 0 to 2. Two things matter most: Muon for the layers' matrices of the base,
and attention that stays within a document. The experts end 13 to 18 % (of the norm of the
weights) away from the base; twice that, and every merge of them collapses.
"""

from collections.abc import Mapping
from dataclasses import dataclass

TEXT = "text"
"""In a mix, beside the kinds of tasks: plain text, a row of it per document."""

ROWS, ROW_LENGTH = 8, 64
"""Of a training step, in tokens."""
WARMUP_STEPS = 20


@dataclass(frozen=True)
class Phase:
    """The training of one model: how its documents are mixed, and how it steps.

    `mix` weighs kinds of documents. `muon_rate` is the learning rate of the layers' matrices
    under Muon; None leaves them to AdamW with the rest.
    """

    name: str
    mix: Mapping[str, float]
    steps: int
    adamw_rate: float
    muon_rate: float | None = None


BASE = Phase(
    name="base",
    mix={
        TEXT: 0.05,
        "humaneval": 0.02,
        "mbpp": 0.02,
        "math": 0.40,
        "gsm8k": 0.28,
        "mmlu": 0.04,
        "ifeval": 0.20,
    },
    steps=800,
    adamw_rate=1e-2,
    muon_rate=7e-3,
)

EXPERTS = (
    Phase("code", {"humaneval": 0.5, "mbpp": 0.5}, steps=250, adamw_rate=1.2e-3),
    Phase("instruct", {"mmlu": 0.25, "ifeval": 0.75}, steps=250, adamw_rate=1.2e-3),
    Phase("math", {"math": 0.5, "gsm8k": 0.5}, steps=250, adamw_rate=1.2e-3),
)
