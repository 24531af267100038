"""What lm-eval's index says of a task, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lm_eval.tasks._index import Entry, Kind


def leaves(index: Mapping[str, Entry], entry: Entry) -> Iterator[Entry]:
    """The task, or every task below the group; each one's `cfg` has its functions by name."""
    if entry.kind is not Kind.GROUP:
        if entry.yaml_path is not None:
            yield entry
        return
    for member in expanded(index, (entry.cfg or {}).get("task", [])):
        if (name := member_name(member)) in index:
            yield from leaves(index, index[name])


def expanded(index: Mapping[str, Entry], members: Any) -> Iterator[Any]:
    """A group's members, each tag replaced by the tasks that bear it.

    A member is a name, or a table that holds it and what the group overrides.
    """
    for member in members if isinstance(members, list) else []:
        entry = index.get(member_name(member))
        if entry is None or entry.kind is not Kind.TAG:
            yield member
            continue
        for name in sorted(entry.tags):
            yield name if isinstance(member, str) else {**member, "task": name}


def member_name(member: Any) -> str:
    """The name of a group's member; empty if it has none."""
    name = member.get("group") or member.get("task") if isinstance(member, dict) else member
    return name if isinstance(name, str) else ""
