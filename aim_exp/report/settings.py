"""Settings: a run's whole configuration, flat, and which of it matters to its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aim_exp.checkpoint.varying import is_filter
from aim_exp.report.draws import DRAWS
from aim_exp.report.grouped import grouped
from aim_exp.store.run_record import PopulationRecord, RunRecord

Settings = Mapping[str, Any]
"""By full key (`method.density`) a number, a text, True, False or None."""

EXPERTS = "population.merge"
ANY = object()
"""The value of a setting that a row has several of: they make no difference to it."""
WITHOUT_EFFECT = (
    "device", "threads", "cache_dir", "save_model", "plan", "debug", "fail_fast", "select",
    "tracker", "experiment", "local", "population.name", "evaluator.batch_size",
    "calibration.offload",
)  # fmt: skip
"""Keys, and groups, that change no number: they name no row."""
OF_RELAXATION = ("aim", "calibration")
"""Groups that play no part in a plain merge."""
OF_MERGES = ("method", "take", "omega", "aim", "calibration", "seed", EXPERTS)
"""What base and experts do not depend on."""


def settings_of(record: RunRecord) -> dict[str, Any]:
    """Every setting of a run; the options chosen stand under the names of their groups.

    A table with a value for each expert is one value where they are equal.
    """
    flat = {
        group: option
        for group, option in record.choices.items()
        if option is not None and not group.startswith("hydra/")
    }
    flat |= dict(_flat(record.config, "", record.population))
    if record.population.merged:
        flat[EXPERTS] = "+".join(record.population.merged)
    elif flat.get(EXPERTS) is None:
        flat.pop(EXPERTS, None)  # all, whoever they are
    return flat


def settings_with_effect(record: RunRecord, settings: Settings | None = None) -> dict[str, Any]:
    """Of all of a run's those that the merged model and its scores depend on, as far as one tells.

    Omega is the one that a dose led to; a relaxation that has none reads no texts either.
    """
    settings, relaxed = dict(settings or settings_of(record)), is_relaxed(record)
    if relaxed:
        settings["omega"] = record.omega
    idle = OF_RELAXATION if not relaxed else ("omega", "calibration") * (record.omega is None)
    return with_effect(settings, record.draws, idle)


def with_effect(
    settings: Settings, draws: Collection[str] = (), idle: Sequence[str] = ()
) -> dict[str, Any]:
    """`settings` without those that change no number, seeds that draw nothing, and `idle` ones."""
    left_out = (*WITHOUT_EFFECT, *(seed for seed in DRAWS if seed not in draws), *idle)
    starts = tuple(f"{key}." for key in left_out)
    return {name: v for name, v in settings.items() if not f"{name}.".startswith(starts)}


def is_relaxed(record: RunRecord) -> bool:
    """Whether a relaxation was to change the merge."""
    return record.relaxed or record.relaxation is not None


def varying(rows: Iterable[Settings], incomplete: Iterable[Settings] = ()) -> tuple[str, ...]:
    """Those with more than one value; an option's own fields are compared within it.

    There a field that some have and others have not varies too: `method.weight` may be a number or
    a table. Of `incomplete` rows only what they have counts. `method` and `omega` come first,
    whether they vary or not: no merge is named without them.
    """
    values: dict[tuple[str, str], set[Any]] = {}
    having: Counter[tuple[str, str]] = Counter()

    def add(settings: Settings) -> list[tuple[str, str]]:
        """Its fields, each with the option that it belongs to."""
        scoped = []
        for name, value in settings.items():
            group, dot, _ = name.partition(".")
            scoped.append((name, str(settings.get(group)) if dot else ""))
            values.setdefault(scoped[-1], set()).add(value)
        return scoped

    for settings in rows:
        having.update(add(settings))
        having.update((name, str(option)) for name, option in settings.items() if "." not in name)
    for settings in incomplete:
        add(settings)
    several = [
        name
        for (name, scope), of in values.items()
        if (len(of) > 1 and len({as_text(value) for value in of - {ANY}}) > 1)
        or 0 < having[name, scope] < having[name.partition(".")[0], scope]
    ]
    return tuple(dict.fromkeys(["method", "omega", *several]))


def short_names(names: Collection[str]) -> dict[str, str]:
    """By full key the shortest end of it that no other key has: `method.density` -> `density`."""
    ends: dict[str, set[str]] = {}
    for name in names:
        for end in _ends(name):
            ends.setdefault(end, set()).add(name)
    short = {name: next(end for end in _ends(name) if len(ends[end]) == 1 or end == name)
             for name in names}  # fmt: skip
    return short | ({EXPERTS: "experts"} if EXPERTS in names else {})


def label(settings: Mapping[str, str], names: Sequence[str], short: Mapping[str, str]) -> str:
    """A merge in a few words, by its method and the settings in `names`: `ties omega=0.4`."""
    parts = [f"{short.get(name, name)}={settings[name]}"
             for name in names if name in settings and name != "method"]  # fmt: skip
    return " ".join([settings.get("method", "?"), *parts])


def as_text(value: Any) -> str:
    """A value, short, as one would write it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {as_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(as_text(item) for item in value) + "]"
    return str(value)


def different(tables: Iterable[Settings]) -> dict[str, list[str]]:
    """By name the different values in any of the tables, as text."""
    pairs = ((name, as_text(value)) for table in tables for name, value in table.items())
    return grouped(dict.fromkeys(pairs))


def begins(name: str, keys: Iterable[str]) -> bool:
    """Whether `name` is one of these keys, or lies in one of these groups."""
    return f"{name}.".startswith(tuple(f"{key}." for key in keys))


def _flat(
    node: Mapping[str, Any], above: str, population: PopulationRecord
) -> Iterator[tuple[str, Any]]:
    merged, experts = set(population.merged), set(population.experts)
    for key, value in node.items():
        name = f"{above}{key}"
        if key == "_target_":
            continue
        if not isinstance(value, Mapping):
            yield name, as_text(value) if isinstance(value, list | tuple) else value
        elif any(map(is_filter, value)):  # it is one value, as a list is
            yield name, as_text(value)
        elif (
            merged
            and merged <= set(value) <= experts
            and len(set(map(as_text, value.values()))) == 1
        ):
            yield name, next(iter(value.values()))
        else:
            yield from _flat(value, f"{name}.", population)


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
