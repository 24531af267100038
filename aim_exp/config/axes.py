"""Axes of a sweep beside Hydra's own.

    population.merge=subsets(k=2..3, n=5, seed=0)            which experts are merged
    method=grid({ties: {density: [0.1, 0.2]}, linear: {}})   each option with its own settings

Annotations are objects here, not text: Hydra's parser looks at those of the functions.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import chain, combinations, product
from random import Random
from typing import Any

from hydra._internal.grammar.functions import Functions
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser import overrides_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString, Transformer
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from aim_exp.errors import ConfigError

KEY = "population.merge="
TEXT = re.compile(r"subsets\(k=(?P<k>[^,]*),n=(?P<n>\d+),seed=(?P<seed>\d+)\)")
POINT = re.compile(r"(?P<key>[^=]+)='grid \[.*")
"""An override that stands for an option and settings of it."""
DECIDING = ("population", "method=", "experiment", "+", "local")
"""How overrides begin that may decide which experts there are and how many a method takes."""

_functions = overrides_parser.create_functions


def subsets(k: int | str = "", n: int = 0, seed: int = 0) -> QuotedString:
    """A value of `population.merge` that a sweep has in several jobs, one for each subset.

    `k`, or `k..l`, is how many experts, by default all, or as many as the method takes; `n` (0:
    all) is how many subsets of a size, drawn by `seed`.
    """
    return QuotedString(f"subsets(k={k},n={n},seed={seed})", Quote.single)


def grid(options: dict) -> ChoiceSweep:  # type: ignore[type-arg]
    """A sweep of a group over all combinations of the values that each option's settings have.

    `{ties: {density: [0.1, 0.2], scale: [1, 2]}, linear: {}}` are five jobs; a setting with one
    value, `{k: 2}`, is set to it.
    """
    points = []
    for option, settings in options.items():
        if not isinstance(settings, dict):
            raise ConfigError([f"{option}: must be {{setting: [value, ...], ...}}"])
        axes = [
            [f"{name}={Transformer.str(value)}" for value in _values(values)]
            for name, values in settings.items()
        ]
        points += [json.dumps([str(option), *point]) for point in product(*axes)]
    return ChoiceSweep(list=[QuotedString(f"grid {point}", Quote.single) for point in points])


def _values(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def register() -> None:
    """Teach Hydra's parser the functions; once per process."""

    def functions() -> Functions:
        known = _functions()
        known.register("subsets", subsets)
        known.register("grid", grid)
        return known

    setattr(overrides_parser, "create_functions", functions)  # noqa: B010


def teach(sweeper: Any) -> None:
    """Teach a sweeper, Hydra's basic one, what the functions stand for."""
    plain = sweeper.split_arguments

    def split(overrides: list[Any], max_batch_size: int | None) -> list[list[list[str]]]:
        known: dict[tuple[str, ...], tuple[Sequence[str], int]] = {}
        points = [[*chain(*map(_overrides, job))] for job in plain(overrides, None)[0]]
        jobs = [each for job in points for each in _expanded(job, known)]
        chunks = sweeper.split_overrides_to_chunks(jobs, max_batch_size)
        return [jobs] if max_batch_size is None else [*chunks]

    if plain.__module__ != __name__:
        sweeper.split_arguments = staticmethod(split)


@cache
def _overrides(override: str) -> Sequence[str]:
    """The override itself, or those of the option and the settings that it stands for."""
    match = POINT.match(override)
    if match is None:
        return (override,)
    text = str(OverridesParser.create().parse_override(override).value())
    option, *settings = json.loads(text.removeprefix("grid "))
    return (f"{match['key']}={option}", *(f"{match['key']}.{setting}" for setting in settings))


def _expanded(
    job: Sequence[str], known: dict[tuple[str, ...], tuple[Sequence[str], int]]
) -> list[list[str]]:
    """The job itself, or one for each subset of experts that it asks for.

    Where there is none, or what they are drawn from cannot be built, the job is left as it is,
    and tells so in its turn. `known` are experts by what decides on them.
    """
    place = next((i for i, override in enumerate(job) if override.startswith(KEY)), None)
    match = None if place is None else TEXT.search(job[place].replace("\\", ""))
    if place is None or match is None:
        return [[*job]]
    deciding = tuple(o for o in job if o.startswith(DECIDING) and o != job[place])
    try:
        if deciding not in known:
            known[deciding] = _experts(deciding)
    except (HydraException, OmegaConfBaseException):
        return [[*job]]
    names, most = known[deciding]
    chosen = subsets_of(names, match["k"] or str(most), int(match["n"]), match["seed"])
    values = ["null" if len(each) == len(names) else f"[{','.join(each)}]" for each in chosen]
    values = values or [job[place].removeprefix(KEY)]
    return [[*job[:place], f"{KEY}{value}", *job[place + 1 :]] for value in values]


def subsets_of(names: Sequence[str], k: str, n: int, seed: str) -> list[tuple[str, ...]]:
    """Subsets of `names` with `k` (or `k..l`) of them, by size; at most `n` of a size, if given."""
    low, _, high = k.partition("..")
    subsets: list[tuple[str, ...]] = []
    for size in range(int(low), int(high or low) + 1):
        every = list(combinations(names, size))
        if 0 < n < len(every):
            places = Random(f"{seed} {size}").sample(range(len(every)), n)
            every = [every[place] for place in sorted(places)]
        subsets += every
    return subsets


def _experts(overrides: Sequence[str]) -> tuple[Sequence[str], int]:
    """The population's experts, and how many of them the method takes at most."""
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration("config", [*overrides], RunMode.RUN)
    source, method = (
        instantiate(config[group], _convert_="all") for group in ("population", "method")
    )
    names = source.expert_names
    return names, min(len(names), method.most_experts or len(names))
