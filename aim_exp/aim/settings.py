"""The group `aim`: what relaxes a merge, and by which measure its strength is set."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from aim_exp.checkpoint.varying import of_expert, setting_problems
from aim_exp.errors import OneOf, did_you_mean, number_problem, setting_limits

AIM = frozenset({"identity", "power", "threshold"})
"""Functions of a channel's own saliency: AIM with another f is AIM."""
CONTROLS = frozenset(
    {"uniform", "uniform_norm", "uniform_out", "uniform_global", "shuffled", "inverted"}
)
"""As strong as AIM by some measure, without what AIM is about."""
RIVALS = frozenset({"lines", "svc"})
"""What relaxes any merge without reading text."""
SCALINGS = AIM | CONTROLS | RIVALS
MATCHED = frozenset({"uniform_norm", "uniform_out", "uniform_global"})
"""Controls that need the merge's delta to be as strong as AIM."""
NEEDS_VALUE = {"power": math.inf, "threshold": 1.0}
"""Scalings that are nothing without a value, and the largest it may be."""
TAKES_VALUE = frozenset(NEEDS_VALUE) | RIVALS
DOSES = ("mean_r", "norm", "out")

Named = tuple[str, float | None]


def named(text: str) -> Named:
    """`power:2` as ("power", 2.0), `identity` as ("identity", None); NaN for what is no number."""
    name, colon, value = text.partition(":")
    try:
        return name, float(value) if colon else None
    except ValueError:
        return name, math.nan


@dataclass(frozen=True, kw_only=True)
class AimSettings:
    """The group `aim`: everything about a relaxation but omega.

    `statistic` is what is measured per input channel: `mean_abs`, the paper's mean |x|, or
    `rms`; `column_norm` multiplies it by the norm of base's weight column, as in Wanda's score
    (norm weights keep the activation alone). `saliency` says whose activations: base's, or the
    mean over base and the merged experts. `normalise` is what it is divided by, at most 1 then.
    `scaling` (`NAME` or `NAME:VALUE`) is f, a control, or a rival that needs no text.
    `dose` (`NAME:VALUE`) is what should be left of the merge's change: omega follows from it.
    `exclude` are glob patterns of tensor names that keep their merged values. `tied_head` says
    whether an embedding that is also the output head is relaxed by the head's input (`relax`,
    the authors' code) or not (`keep`). `omega_by` is omega where it varies, over the depth or by
    tensor (`checkpoint.varying`); where it says nothing omega counts.
    """

    statistic: Annotated[str, OneOf("mean_abs", "rms")]
    column_norm: bool
    saliency: Annotated[str, OneOf("base", "mean")]
    normalise: Annotated[str, OneOf("max", "p99", "mean")]
    scaling: str
    dose: str | None
    exclude: tuple[str, ...]
    tied_head: Annotated[str, OneOf("keep", "relax")]
    omega_by: Any

    def problems(self) -> list[str]:
        """What is wrong with the settings, `key=value: why; fix` each."""
        problems = setting_limits("aim", self)
        if not all(isinstance(pattern, str) for pattern in self.exclude):
            problems.append(f"aim.exclude={[*self.exclude]}: must be a list of patterns, as text")
        problems += self._scaling_problems() + self._dose_problems()
        if self.omega_by is None or problems:
            return problems
        if not self.uses_omega:
            return [f"aim.omega_by={self.omega_by}: omega plays no part; set aim.omega_by=null"]
        number = partial(number_problem, low=0, high=1)
        return setting_problems("aim.omega_by", self.omega_by, number, whole=False)

    def merge_problems(self, experts: int, models: int) -> list[str]:
        """What is wrong for a merge of `models` models, in a population of so many experts."""
        name, value = named(self.scaling)
        if self.reads_texts and self.saliency == "mean" and not experts:
            return ["aim.saliency=mean: there are no experts to measure; set aim.saliency=base"]
        if name == "svc" and models < 2:
            return ["aim.scaling=svc: finds what experts share; merge at least two"]
        if name == "lines" and models < 2 and value is None:
            return [
                "aim.scaling=lines: of one model it needs the share kept in the first layer; "
                "say aim.scaling=lines:0.5"
            ]
        return []

    @property
    def relaxation(self) -> str:
        """What it is called: `aim`, a control or a rival."""
        name, _ = named(self.scaling)
        return "aim" if name in AIM else name

    @property
    def reads_texts(self) -> bool:
        """Whether it goes by activations."""
        return self.relaxation not in RIVALS

    @property
    def uses_omega(self) -> bool:
        """Whether the strength is omega's to set, below 1."""
        return self.reads_texts and self.dose is None

    @property
    def needs_delta(self) -> bool:
        """Whether the merge's delta must be known before the first tensor is relaxed."""
        return self.reads_texts and (self.dose is not None or self.scaling in MATCHED)

    @property
    def stochastic(self) -> bool:
        """Whether the scaling draws from the seed."""
        return self.scaling == "shuffled"

    def spec(self) -> dict[str, Any]:
        """What relaxed weights depend on, for the content key; omega, saliency and seed apart."""
        spec: dict[str, Any] = {"scaling": named(self.scaling), "exclude": sorted(self.exclude)}
        if self.reads_texts:
            keys = ("statistic", "column_norm", "normalise", "tied_head")
            spec |= {key: getattr(self, key) for key in keys}
        if self.reads_texts and self.dose is not None:
            spec["dose"] = named(self.dose)
        if self.omega_by is not None:
            spec["omega_by"] = of_expert(self.omega_by, "")
        return spec

    def _scaling_problems(self) -> list[str]:
        name, value = named(self.scaling)
        key = f"aim.scaling={self.scaling}"
        if name not in SCALINGS:
            known = ", ".join(sorted(SCALINGS))
            return [f"{key}: must be one of {known}{did_you_mean(name, SCALINGS)}"]
        if value is None:
            return [f"{key}: needs a value; say {name}:0.5"] if name in NEEDS_VALUE else []
        if name not in TAKES_VALUE:
            return [f"{key}: {name} takes no value; say aim.scaling={name}"]
        largest = NEEDS_VALUE.get(name, math.inf)
        return number_problem(f"aim.scaling={name}", value, 0, largest, open_low=name != "lines")

    def _dose_problems(self) -> list[str]:
        if self.dose is None:
            return []
        name, value = named(self.dose)
        if name not in DOSES or value is None:
            known = " or ".join(f"{known}:VALUE" for known in DOSES)
            return [f"aim.dose={self.dose}: must be {known}, or null"]
        problems = number_problem(f"aim.dose={name}", value, 0, 1)
        if not self.reads_texts:
            problems.append(
                f"aim.dose={self.dose}: {self.relaxation} has no omega; set aim.dose=null"
            )
        return problems
