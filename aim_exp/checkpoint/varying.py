"""Settings that vary over a merge: by expert, over the depth of the layers, by tensor.

A setting is a number; a list, from the first layer to the last and straight between; or a table, of
experts or of filters, whose values are settings again. A filter is a glob of tensor names, and the
first in the table that is like a name counts; `'*'` stands for the rest.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from aim_exp.checkpoint.names import EMBEDDINGS, HEADS, place_in_depth

Setting = float | Sequence[float] | Mapping[str, Any]
REST = "*"
"""The filter that every name is like."""


def setting_at(setting: Setting, name: str, depth: float, expert: str, rest: float = 0.0) -> float:
    """The setting of an expert in the tensor `name`; `rest` where no filter is like it.

    `depth` is the tensor's, of `depths`.
    """
    if isinstance(setting, Mapping):
        key = expert if expert in setting else first_like(setting, name)
        return rest if key is None else setting_at(setting[key], name, depth, expert, rest)
    if isinstance(setting, Sequence):
        place = depth * (len(setting) - 1)
        below = min(int(place), max(0, len(setting) - 2))
        above = setting[min(below + 1, len(setting) - 1)]
        return float(setting[below] + (above - setting[below]) * (place - below))
    return float(setting)


def first_like(table: Iterable[str], name: str) -> str | None:
    """The first filter that is like a tensor's name."""
    return next((key for key in table if is_like(name, [key])), None)


def is_like(name: str, filters: Iterable[str]) -> bool:
    """Whether a tensor's name is like one of the filters."""
    return any(fnmatch.fnmatchcase(name, each) for each in filters)


def idle(names: Iterable[str], filters: Iterable[str]) -> list[str]:
    """The filters that none of `names` is like."""
    names = list(names)
    return [each for each in filters if not any(is_like(name, [each]) for name in names)]


def idle_problems(key: str, setting: Any, names: Sequence[str]) -> list[str]:
    """The filters of a setting that no tensor of `names` goes by, a problem each."""
    if not isinstance(setting, Mapping) or not names:
        return []
    problems = []
    for own, value in setting.items():
        its = [n for n in names if not is_filter(own) or first_like(setting, n) == own]
        if not its and own != REST:
            shadowed = not idle(names, [own])
            problems.append(
                f"{key}: an earlier filter has all tensors that are like {own}; put it first"
                if shadowed
                else f"{key}: no tensor is like {own}; they are called like {max(names, key=len)}"
            )
        problems += idle_problems(key, value, its)
    return [*dict.fromkeys(problems)]


def setting_problems(
    key: str,
    setting: Any,
    number: Callable[[str, Any], list[str]],
    experts: Sequence[str] = (),
    merged: Sequence[str] = (),
    *,
    whole: bool = True,
) -> list[str]:
    """What is wrong with a setting, whose numbers are checked by `number(key, value)`.

    A table of experts must have all of `merged`, one of filters must cover the rest if `whole`.
    """
    if isinstance(setting, Mapping) and setting:
        names = [str(name) for name in setting]
        filters = [name for name in names if is_filter(name)]
        problems = []
        if filters and len(filters) < len(names):
            problems.append(f"{key}: mixes experts and filters; put one table into the other")
        elif filters and whole and REST not in filters:
            problems.append(f"{key}: nothing for the other tensors; give '{REST}' last")
        elif missing := [] if filters else [name for name in merged if name not in names]:
            problems.append(f"{key}: nothing for {', '.join(missing)}; name each expert")
        for name, value in setting.items():
            if not is_filter(name) and name not in experts:
                known = ", ".join(experts) or "none here"
                problems.append(f"{key}.{name}: no such expert; there are {known}")
            problems += setting_problems(
                f"{key}.{name}", value, number, experts, merged, whole=whole
            )
        return problems
    if isinstance(setting, list | tuple) and setting:
        return [p for i, value in enumerate(setting) for p in number(f"{key}[{i}]", value)]
    return number(key, setting)


def is_filter(name: object) -> bool:
    """Whether a key of a table is a filter, no expert's name."""
    return any(sign in str(name) for sign in "*?[")


def of_expert(setting: Setting, expert: str) -> Any:
    """An expert's own setting as plain data for a content key: a table of filters is its pairs."""
    if not isinstance(setting, Mapping):
        return [*setting] if isinstance(setting, Sequence) else float(setting)
    if expert in setting:
        return of_expert(setting[expert], expert)
    return [[name, of_expert(value, expert)] for name, value in setting.items()]


def numbers(setting: Setting) -> Iterator[float]:
    """All numbers in a setting."""
    if isinstance(setting, Mapping):
        for value in setting.values():
            yield from numbers(value)
    elif isinstance(setting, Sequence):
        yield from setting
    else:
        yield setting


def depths(names: Iterable[str]) -> dict[str, float]:
    """How deep tensors lie, from 0, the first layer and what is before it, to 1, the last one.

    Each stack of layers for itself. Of what is in no layer embeddings are before, the rest behind.
    """
    names = list(names)
    counts = layer_counts(names)

    def depth(name: str) -> float:
        stack, layer = place_in_depth(name)
        if layer is not None:
            return layer / max(1, counts[stack] - 1)
        before = name.endswith((*EMBEDDINGS, "wpe.weight")) and not name.endswith(HEADS)
        return 0.0 if before else 1.0

    return {name: depth(name) for name in names}


def layer_counts(names: Iterable[str]) -> dict[str, int]:
    """How many layers each stack has."""
    counts: dict[str, int] = {}
    for stack, layer in map(place_in_depth, names):
        if layer is not None:
            counts[stack] = max(counts.get(stack, 0), layer + 1)
    return counts
