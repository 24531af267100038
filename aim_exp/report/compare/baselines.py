"""What each run is compared with: its twin, another run, or a model that was scored beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aim_exp.errors import AimError, did_you_mean
from aim_exp.report.models import Model, merged_model, population_models, reference_models
from aim_exp.report.results import Job, Results
from aim_exp.report.settings import Settings, as_words, label, short_name
from aim_exp.report.studies import SEEDS
from aim_exp.report.summary import SHOWN
from aim_exp.store.records import RunRecord


@dataclass(frozen=True)
class Baseline:
    """A scored model that runs are compared with: a run's merge, or one scored beside it."""

    job: Job
    """The run that scored it."""
    model: Model

    @property
    def name(self) -> str:
        """The run's, or the model's."""
        return self.job.name if self.is_merge else self.model.name

    @property
    def is_merge(self) -> bool:
        """Whether it is a run's merge."""
        return self.model.role == "merged"

    def label(self, settings: Sequence[str]) -> str:
        """In a few words, by these settings; a model that is no merge by its population's."""
        if self.is_merge:
            return label(self.job.settings, settings)
        own = [name for name in settings if name.startswith("population")]
        return label({**self.job.settings, "method": self.name}, own)


class Against(Protocol):
    """What runs are to be compared with."""

    @property
    def title(self) -> str:
        """`the plain merge`, `method=ties`, `base`."""
        ...

    @property
    def own(self) -> str:
        """The same of one run: `its plain merge`."""
        ...

    @property
    def sought(self) -> str:
        """What a run must have to be compared: `twin with omega=null`."""
        ...

    def candidates(self, results: Results) -> Sequence[Baseline]:
        """Every model that a run could be compared with."""
        ...

    def fits(self, job: Job, candidate: Baseline) -> bool:
        """Whether a run is compared with this one of the candidates."""
        ...


@dataclass(frozen=True)
class Twin:
    """The run that has these settings and else the same.

    The same are the settings that both have: a plain merge has none of AIM's, and other
    methods have other fields. The same are also the models and how they are asked.
    """

    settings: Settings

    @property
    def title(self) -> str:
        """`the plain merge`, or `method=ties`."""
        return "the plain merge" if self == PLAIN else as_words(self.settings)

    @property
    def own(self) -> str:
        """`its plain merge`, or `its twin with method=ties`."""
        return "its plain merge" if self == PLAIN else f"its {self.sought}"

    @property
    def sought(self) -> str:
        """`twin with omega=null`."""
        return f"twin with {as_words(self.settings)}"

    def candidates(self, results: Results) -> list[Baseline]:
        """The merges of the runs with the settings."""
        return [
            _merge(job)
            for job in results.scored
            if all(job.settings.get(name) == value for name, value in self.settings.items())
        ]

    def fits(self, job: Job, candidate: Baseline) -> bool:
        """Whether they differ in nothing but the settings, and what belongs to those."""
        twin = candidate.job
        left_out = tuple(f"{name}." for name in self.settings)  # `method.density` to `method`
        shared = [
            name
            for name in job.settings.keys() & twin.settings.keys()
            if name not in self.settings and not name.startswith(left_out)
        ]
        alike = all(job.settings[name] == twin.settings[name] for name in shared)
        return alike and _asked_alike(job.record, twin.record)


PLAIN = Twin({"omega": "null"})
"""What a run with AIM is compared with, unless another baseline is asked for."""


@dataclass(frozen=True)
class Named:
    """One model for all runs: a run's merge, or the model of this name in their own population."""

    title: str
    models: tuple[Baseline, ...]
    """One; of a member, one for each population."""

    @property
    def own(self) -> str:
        """`base`."""
        return self.title

    @property
    def sought(self) -> str:
        """`base`."""
        return self.title

    def candidates(self, results: Results) -> Sequence[Baseline]:
        """The model of each population."""
        return self.models

    def fits(self, job: Job, candidate: Baseline) -> bool:
        """A merge is compared with any run; a member with those of its population."""
        return candidate.is_merge or candidate.job.population == job.population


@dataclass(frozen=True)
class Pairs:
    """Runs with their baselines, in the order of the runs, and those that have none."""

    pairs: tuple[tuple[Job, Baseline], ...]
    alone: tuple[Job, ...]


def find_pairs(results: Results, against: Against = PLAIN) -> Pairs:
    """For each scored run that is no baseline itself, the first that fits."""
    candidates = against.candidates(results)
    themselves = {each.job.directory for each in candidates if each.is_merge}
    pairs, alone = [], []
    for job in results.scored:
        if job.directory not in themselves:
            baseline = next((each for each in candidates if against.fits(job, each)), None)
            if baseline:
                pairs.append((job, baseline))
            else:
                alone.append(job)
    return Pairs(tuple(pairs), tuple(alone))


def parse_against(results: Results, texts: Sequence[str]) -> Against:
    """`omega=null`, `scaling=uniform`: a twin with these settings; or one name: that model.

    A run has three names: its number, its folder, its label (`ties omega=0.2`). Nothing: the plain
    merge. AimError if it is not here, or if several runs have the label.
    """
    models = {text: _named(results, text) for text in texts}
    names = [text for text, model in models.items() if model or not _is_setting(text)]
    if not names:
        return Twin(_parse_settings(results, texts)) if texts else PLAIN
    if len(texts) > 1:
        raise AimError(f"--against {names[0]}: the name of a model goes with no other --against")
    model = models[names[0]]
    if model is None:
        members = _members(results)
        labels = [results.label(job) for job in results.scored]
        hint = did_you_mean(names[0], [*members, *labels])
        raise AimError(
            f"--against {names[0]}: no such model{hint}; there are "
            f"{''.join(f'{name}, ' for name in members)}the runs {_runs(results)}, by number or "
            f"label ({', '.join(labels[:2])}), and twins by SETTING=VALUE, as in omega=null"
        )
    return model


def parse_names(results: Results, option: str, names: Iterable[str]) -> tuple[str, ...]:
    """Settings by their full names; a short one (`density`) will do. AimError if not here."""
    known = {name: None for job in results.scored for name in job.settings}
    full = {short_name(name): name for name in known} | {name: name for name in known}
    found = []
    for name in names:
        if name not in full:
            varying = ", ".join(map(short_name, results.varying))
            raise AimError(
                f"{option} {name}: the runs have no such setting{did_you_mean(name, full)}; those "
                f"that vary are: {varying}"
            )
        found.append(full[name])
    return tuple(found)


def _is_setting(text: str) -> bool:
    """`omega=null` is one, `ties omega=0.2` a label."""
    name, equals, _ = text.partition("=")
    return bool(equals) and " " not in name


def _parse_settings(results: Results, texts: Sequence[str]) -> dict[str, str]:
    """By their full names, with values as the runs write them."""
    settings = {}
    for text in texts:
        name, _, value = text.partition("=")
        (full,) = parse_names(results, "--against", [name])
        values = list(dict.fromkeys(j.settings[full] for j in results.scored if full in j.settings))
        settings[full] = next((known for known in values if _equal(known, value)), "")
        if not settings[full]:
            there_are = ", ".join(values) or "none"
            raise AimError(f"--against {text}: no scored run has it; there are: {there_are}")
    return settings


def _named(results: Results, name: str) -> Named | None:
    """The members of this name, or else the run, whose name may look like a setting."""
    members = _members(results)
    if name in members:
        return Named(name, tuple(members[name]))
    no_seeds = [setting for setting in results.varying if setting not in SEEDS]
    kinds = (
        lambda job: (job.name, job.folder),
        lambda job: (results.label(job),),
        lambda job: (label(job.settings, no_seeds),),  # as in a table of means over seeds
    )
    found = ([job for job in results.scored if name in kind(job)] for kind in kinds)
    runs = next(filter(None, found), [])
    if len(runs) > 1:
        numbers = ", ".join(job.name for job in runs)
        raise AimError(f"--against {name}: {len(runs)} runs have this label; name one: {numbers}")
    return Named(f"{runs[0].name} ({results.label(runs[0])})", (_merge(runs[0]),)) if runs else None


def _runs(results: Results) -> str:
    """`0 to 11`; of few, each."""
    names = [job.name for job in results.scored]
    return ", ".join(names) if len(names) <= SHOWN else f"{names[0]} to {names[-1]}"


def _members(results: Results) -> dict[str, list[Baseline]]:
    """By name, what was scored beside the merges: one for each population."""
    found: dict[str, dict[int, Baseline]] = {}
    for job in results.scored:
        assert job.population is not None, "what is scored has a population"
        for model in (*population_models(job.record), *reference_models(job.record)):
            found.setdefault(model.name, {}).setdefault(job.population, Baseline(job, model))
    return {name: list(models.values()) for name, models in found.items()}


def _merge(job: Job) -> Baseline:
    model = merged_model(job.record)
    assert model is not None, "the run is scored"
    return Baseline(job, model)


def _asked_alike(one: RunRecord, other: RunRecord) -> bool:
    """Whether the models and how they are asked are the same, as far as both records say."""
    models = [record.population.get("models") for record in (one, other)]
    protocols = [_protocols(record) for record in (one, other)]
    return all(first == second for first, second in (models, protocols) if first and second)


def _protocols(record: RunRecord) -> Mapping[str, Any]:
    """Empty where none is known."""
    found = {name: about.get("protocol") for name, about in record.benchmarks.items()}
    return found if any(found.values()) else {}


def _equal(known: str, value: str) -> bool:
    try:
        return float(known) == float(value)
    except ValueError:
        return known == value
