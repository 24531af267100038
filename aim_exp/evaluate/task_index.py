"""Which tasks there are, own ones and lm-eval's, before anything is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind, TaskIndex
from lm_eval.tasks._yaml_loader import load_yaml

from aim_exp.evaluate.code.metric import install_code_eval
from aim_exp.evaluate.quiet import silence_lm_eval
from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.evaluate.task_files import YAML_SUFFIXES, files_digest, is_path, own_files


@dataclass(frozen=True)
class KnownTasks:
    """The tasks by name, the one that is asked for, and what of the own files is no task.

    `entry` is None where there is no such task; `unreadable` has the reason for each file.
    """

    index: Mapping[str, Entry]
    entry: Entry | None
    unreadable: Mapping[Path, str]

    def manager(self, items_seed: int = 0) -> TaskManager:
        """lm-eval's, over these tasks; those with several sets of items ask the one of the seed."""
        metadata: Any = {"items_seed": items_seed} if items_seed else None
        manager = TaskManager(include_defaults=False, metadata=metadata)
        manager._index = dict(self.index)
        return manager


def known_tasks(folder: Path | None, task: str) -> KnownTasks:
    """Own tasks, and lm-eval's where `task` needs them: its index takes 3 s to make.

    Their functions may be imported afterwards, and load the metrics that they name.
    """
    silence_lm_eval()
    if folder != TINY_TASKS:  # the import takes 1.5 s; the built-in suite needs none
        install_code_eval()
    return _known_tasks(folder, task, files_digest(folder, task))


@cache
def _known_tasks(folder: Path | None, task: str, digest: str | None) -> KnownTasks:
    own: dict[str, Entry] = {}
    unreadable: dict[Path, str] = {}
    for path in own_files(folder, task):
        if path.suffix in YAML_SUFFIXES:
            try:
                _register(path, own)
            except Exception as error:  # YAML's, and whatever lm-eval makes of a wrong key
                unreadable[path] = " ".join(str(error).split())
    name = task
    if is_path(task):
        path = Path(task).absolute()
        name = next((entry.name for entry in own.values() if entry.yaml_path == path), task)
    known = KnownTasks(own, own.get(name), unreadable)
    if not is_path(task) and (known.entry is None or unknown_members(own, known.entry)):
        index = {**_lm_evals(), **own}
        known = replace(known, index=index, entry=index.get(name))
    elif known.entry and unknown_members(own, known.entry):
        known = replace(known, index={**_lm_evals(), **own})
    return known


@cache
def _lm_evals() -> dict[str, Entry]:
    install_code_eval()
    return TaskManager().task_index


def _register(path: Path, index: dict[str, Entry]) -> None:
    """Put the task or group of a file into `index`; a file of neither is for others to include."""
    config = load_yaml(path, resolve_func=False)
    group, members = config.get("group"), config.get("task")
    if group is not None and isinstance(members, str):
        new = (
            f"`tag: {group}`"
            if {"dataset_path", "doc_to_text", "include"} & set(config)
            else (f"`task: [{members}]`")
        )
        raise ValueError(f"`group: {group}` with one task is of older lm-eval; write {new}")
    if group is None and isinstance(members, list):
        raise ValueError(f"`task: {members}` is a group's; add `group: NAME`")
    name = group or members
    if name is None:
        return
    if name in index and index[name].kind is not Kind.TAG:
        raise ValueError(f"{name} is in {index[name].yaml_path} already; rename one")
    TaskIndex.process_cfg(config, path, index)


def leaves(index: Mapping[str, Entry], entry: Entry) -> Iterator[Entry]:
    """The task, or every task below the group, with what the groups override in its `cfg`.

    A function in a `cfg` is its name.
    """
    if entry.kind is not Kind.GROUP:
        yield entry
        return
    for member in expanded(index, (entry.cfg or {}).get("task", [])):
        if below := _member(index, member):
            yield from leaves(index, below)


def unknown_members(index: Mapping[str, Entry], entry: Entry) -> list[str]:
    """The names that the group, or one below it, gives and that are no tasks."""
    if entry.kind is not Kind.GROUP:
        return []
    names = []
    for member in expanded(index, (entry.cfg or {}).get("task", [])):
        below = _member(index, member)
        names += unknown_members(index, below) if below else [member_name(member) or str(member)]
    return names


def _member(index: Mapping[str, Entry], member: Any) -> Entry | None:
    """What a group's member is: a task or group of the index, or one that is described there."""
    name = member_name(member)
    settings = {k: v for k, v in member.items() if k != "group"} if isinstance(member, dict) else {}
    if name in index:
        entry = index[name]
        if entry.kind is Kind.GROUP:
            return entry
        return replace(entry, cfg={**(entry.cfg or {}), **settings})
    if isinstance(settings.get("task"), list):
        return Entry(name, Kind.GROUP, None, cfg=settings)
    if "doc_to_text" in settings or "dataset_path" in settings:
        return Entry(name, Kind.TASK, None, cfg=settings)
    return None


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
