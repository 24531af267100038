"""Entries of a store in another one, on another cluster or with a paper, and where they come from.

An export is a store itself, to be verified or used as `cache_dir`, with `export.json` in it.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blake3 import blake3

from aim_exp.errors import AimError
from aim_exp.store.entries import SPEC_FILE, Store
from aim_exp.store.files import fill_whole, write_whole
from aim_exp.store.housekeeping import LEFT_OVER, Entry, damages, entries
from aim_exp.store.integrity import DIGESTS_FILE
from aim_exp.store.lines import checked_line, read_lines
from aim_exp.store.processes import note_work, using
from aim_exp.store.provenance import provenance, versions
from aim_exp.store.run_record import MERGED, RunRecord
from aim_exp.store.stage_spec import StageSpec

MANIFEST = "export.json"
IMPORTS = "imports"
"""In a store, what was said of each import: its manifest, named by the digest of it."""
VERSION = 1
TO, INTO = "--to", "--cache-dir"
"""The options that name what is written."""


@dataclass(frozen=True)
class Manifest:
    """What an export says of itself: what exported it where, and which runs made what is in it."""

    created: str
    versions: Mapping[str, str]
    provenance: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]]
    """Command, time, versions and machine of each, its models with identity, its entries."""
    version: int = VERSION


@dataclass
class Transfer:
    """What was carried over: names of entries, and a line for whatever is damaged."""

    new: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    """They were there already, with all that they have."""
    missing: list[str] = field(default_factory=list)
    """The runs rest on them, and the store does not have them."""
    problems: list[str] = field(default_factory=list)


def of_members(record: RunRecord) -> set[str]:
    """The names of what base, experts and references answered, and of their scores."""
    members = [model for model in record.models if model.role != MERGED and model.keys]
    scores = {f"scores/{score.key}" for model in members for score in model.scores.values()}
    return scores | {f"responses/{model.keys['responses']}" for model in members}


def export(
    root: Path, runs: Iterable[RunRecord], names_of: Callable[[RunRecord], set[str]], target: Path
) -> Transfer:
    """Carry what `names_of` says of each run to the store `target`, new or an earlier export."""
    if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
        raise AimError(f"{TO}={target}: is there already, and no export; name a new folder")
    there = {entry.name: entry for entry in entries(root)}
    rests = [(run, names_of(run)) for run in runs]
    names = sorted(set().union(*(names for _, names in rests)))
    with using(root, names):
        transfer = _carry([there[name] for name in names if name in there], Store(target, TO))
    transfer.missing = [name for name in names if name not in there]
    earlier = read_manifest(target).runs if (target / MANIFEST).is_file() else ()
    described = [*earlier, *(_described(run, names & there.keys()) for run, names in rests)]
    distinct = {json.dumps(each, sort_keys=True): each for each in described}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = Manifest(now, versions(), provenance(), list(distinct.values()))
    write_whole(target / MANIFEST, json.dumps(asdict(manifest), indent=1) + "\n", TO)
    return transfer


def import_(source: Path, root: Path) -> Transfer:
    """Carry over what the export `source` holds, and keep what it says of itself."""
    manifest = read_manifest(source)
    text = json.dumps(asdict(manifest), indent=1) + "\n"
    transfer = _carry(
        [e for e in entries(source) if e.stage not in LEFT_OVER], Store(root, "--cache-dir")
    )
    note = root / IMPORTS / f"{blake3(text.encode()).hexdigest(8)}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, text, INTO)
    return transfer


def read_manifest(folder: Path) -> Manifest:
    """What the export says of itself. AimError where it says nothing readable."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            raise AimError(f"{path}: version {content['version']}, this code reads {VERSION}")
        return Manifest(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, AimError):
            raise
        raise AimError(f"{path}: is missing or not readable; export makes it") from error


def _described(run: RunRecord, names: set[str]) -> dict[str, Any]:
    return {
        "command": run.command,
        "created": run.created,
        "population": run.population.name,
        "models": {model.name: model.identity for model in run.models},
        "versions": run.versions,
        "provenance": run.provenance,
        "entries": sorted(names),
    }


def _carry(selection: Iterable[Entry], into: Store) -> Transfer:
    """Copy each entry that is as it was written, and of which `into` lacks something."""
    transfer = Transfer()
    note_work(into.root, into.root)
    for entry in selection:
        problems = list(damages(entry))
        spec = None if problems else _spec(entry)
        if spec is None:
            transfer.problems += problems or [f"{entry.path / SPEC_FILE}: is not of this entry"]
        elif entry.grows:
            new = _add_lines(entry, spec, into)
            (transfer.new if new else transfer.there).append(entry.name)
        elif into.has(spec):
            transfer.there.append(entry.name)
        else:
            into.get_or_make(spec, lambda folder, entry=entry: _copy(entry, folder))
            transfer.new.append(entry.name)
    return transfer


def _spec(entry: Entry) -> StageSpec | None:
    """The ingredients, if they are those of its key."""
    try:
        content = json.loads((entry.path / SPEC_FILE).read_bytes())
        spec = StageSpec(content["stage"], content["version"], content["spec"])
        return spec if spec.name == entry.name else None
    except (OSError, ValueError, TypeError, KeyError, AssertionError, RecursionError):
        return None


def _copy(entry: Entry, folder: Path) -> None:
    """Its files, links as what they lead to."""
    for file in json.loads((entry.path / DIGESTS_FILE).read_bytes())["files"]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(entry.path / file, folder / file)


def _add_lines(entry: Entry, spec: StageSpec, into: Store) -> bool:
    """Write the lines that `into` has not, in a file of their own; whether there are any."""
    with into.growing(spec) as folder:
        known = {key for log in folder.glob("*.jsonl") for key in read_lines(log, spec.key).values}
        new = {
            key: value
            for log in entry.logs
            for key, value in read_lines(log, spec.key).values.items()
            if key not in known
        }
        if new:
            text = "".join(checked_line(spec.key, *line) for line in new.items())
            final = folder / f"responses.{uuid.uuid4().hex[:12]}.jsonl"
            fill_whole(final, lambda partial: partial.write_text(text))
    return bool(new)
