"""What was set in a run, as flat text, and in which settings several runs differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aim_exp.store.records import RunRecord

Settings = Mapping[str, str]
"""`method.density` -> `0.2`, in the order in which tables show them."""

MEASURED = {"n_texts", "n_blocks", "n_tokens"}
"""What a record's `calibration` says beside its settings."""
NO_SETTING = {"base", "experts", "merged", "references", "models"}
"""What a record's `population` says beside its settings."""


def settings_of(record: RunRecord) -> dict[str, str]:
    """The settings of a run that can tell it from another."""
    flat: dict[str, Any] = {"method": record.method, "omega": record.omega}
    merged = record.population.get("merged")
    if isinstance(merged, list):  # a refused configuration may hold anything
        flat["experts"] = "+".join(map(str, merged))
    flat |= {f"method.{name}": value for name, value in record.method_settings.items()}
    flat["seed"] = record.seed
    if record.omega is not None:  # without AIM these change nothing
        flat |= {f"aim.{name}": value for name, value in record.aim.items()}
        flat |= _group("calibration", record.calibration, MEASURED)
    flat |= _group("population", record.population, NO_SETTING)
    flat |= {"dtype": record.dtype, "benchmarks": record.suite}
    return {name: as_text(value) for name, value in flat.items() if value != ""}


def varying(runs: Iterable[Settings]) -> tuple[str, ...]:
    """Settings with more than one value; a method's own fields are compared within it.

    `method` and `omega` come first, whether they vary or not: no run is named without them.
    """
    seen: dict[str, dict[str, set[str]]] = {}
    for settings in runs:
        for name, value in settings.items():
            scope = settings.get("method", "") if name.startswith("method.") else ""
            seen.setdefault(name, {}).setdefault(scope, set()).add(value)
    differing = [
        name for name, scopes in seen.items() if any(len(values) > 1 for values in scopes.values())
    ]
    return tuple(dict.fromkeys(["method", "omega", *differing]))


def label(settings: Settings, names: Sequence[str]) -> str:
    """A run in a few words, by its method and the settings in `names`: `ties omega=0.4`."""
    parts = [
        f"{short_name(name)}={settings[name]}"
        for name in names
        if name in settings and name != "method"
    ]
    return " ".join([settings.get("method", "?"), *parts])


def as_words(settings: Settings) -> str:
    """`omega=null, density=0.2`."""
    return ", ".join(f"{short_name(name)}={value}" for name, value in settings.items())


def short_name(name: str) -> str:
    """`method.density` -> `density`, `aim.scaling` -> `scaling`: no two are alike."""
    return name.removeprefix("method.").removeprefix("aim.")


def as_text(value: Any) -> str:
    """A setting's value, short, as one would write it on the command line."""
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


def _group(group: str, fields: Mapping[str, Any], leave_out: set[str]) -> dict[str, Any]:
    """A config group's choice (its `name`) under the group's own name, then its fields."""
    return {
        group if name == "name" else f"{group}.{name}": value
        for name, value in fields.items()
        if name not in leave_out
    }
