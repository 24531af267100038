"""A power cut at random points of a sweep: `make check-power-cut` (Linux, with strace).

The file operations of a small sweep are recorded and done again in memory, up to a random one,
on a disk that holds what was synced. The sweep goes on from what is left there.
"""

import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_here
from conftest import ROOT
from run_records import numbers, result
from safetensors.torch import load_file

from aim_exp.report import plots
from aim_exp.store import leases
from aim_exp.store.__main__ import main as store_command

POINTS = 50
SWEEP = (
    "-m", "method=task_arithmetic,dare_ties", "omega=0.4", "benchmarks.limit=1",
    "calibration.n_samples=2", "save_model=true", "tracker=none", "cache_dir=cache",
    "hydra.sweep.dir=sweep",
)  # fmt: skip
CALLS = (
    "openat,open,creat,write,writev,pwrite64,pwritev,ftruncate,truncate,lseek,rename,renameat,"
    "renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,"
    "sendfile,copy_file_range,chdir,clone,clone3"
)
LONGEST = 1 << 28
"""Of what a call writes, whole in the record."""


class Lost(StrEnum):
    """What of unsynced work a disk loses."""

    ALL = "names and contents"
    CONTENTS = "contents"
    SOME = "some contents, from some byte on"


@dataclass
class Node:
    """A file (`entries` is None) or a folder: as programs see it, and as it is on the disk."""

    entries: "dict[str, Node] | None" = None
    data: bytearray = field(default_factory=bytearray)
    target: str | None = None
    """Of a symbolic link."""
    synced: Any = None

    def sync(self) -> None:
        self.synced = bytes(self.data) if self.entries is None else dict(self.entries)

    def after_cut(self, lost: Lost, draw: random.Random) -> Any:
        """What the disk has: bytes of a file, entries of a folder."""
        if self.entries is not None:
            return (self.synced or {}) if lost is Lost.ALL else self.entries
        synced = self.synced or b""
        if lost is Lost.SOME and synced != self.data and draw.random() < 0.5:
            return bytes(self.data[: draw.randint(0, len(self.data))])
        return synced


@dataclass(frozen=True)
class Call:
    """A system call that succeeded, of the process `pid` (a thread's is its process's)."""

    pid: int
    name: str
    text: str
    """Its arguments."""
    returned: int
    opened: str
    """The path of the descriptor that it returned."""

    @property
    def files(self) -> list[tuple[str, str]]:
        """The descriptors among the arguments, with their paths."""
        found = re.findall(r"(AT_FDCWD|\d+)<([^>]*)>", self.text)
        return [(number, plain(path)) for number, path in found]

    @property
    def data(self) -> bytes:
        """What it writes, as far as it did."""
        texts = re.findall(r'"([^"]*)"', self.text)
        return b"".join(map(content, texts))[: self.returned]

    def paths(self, at: str) -> list[str]:
        """The paths among the arguments, of a process whose working folder is `at`."""
        base, paths = at, []
        for path, text in re.findall(r'(?:AT_FDCWD|\d+)<([^>]*)>|"([^"]*)"', self.text):
            if path:
                base = plain(path)
            else:
                paths.append(str(Path(base, plain(text))))
                base = at
        return paths


def content(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def plain(escaped: str) -> str:
    return content(escaped).decode()


def calls(record: Path) -> Iterator[Call]:
    """What strace recorded, in the order in which the calls ended."""
    begun: dict[str, str] = {}
    lines = []
    process: dict[int, int] = {}
    for line in record.read_text().splitlines():
        pid, _, text = line.partition(" ")
        text = text.lstrip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        if resumed := re.match(r"<\.\.\. \w+ resumed>", text):
            text = begun.pop(pid) + text[resumed.end() :]
        found = re.fullmatch(r"(\w+)\((.*)\) += (\d+)(?:<([^>]*)>)?.*", text)
        if not found:  # failed, or no call
            continue
        name, arguments, returned, opened = found.groups()
        if "CLONE_THREAD" in arguments:
            process[int(returned)] = int(pid)
        lines.append((int(pid), name, arguments, int(returned), plain(opened or "")))
    for pid, *others in lines:
        while pid in process:
            pid = process[pid]
        yield Call(pid, *others)


class Disk:
    """The files below `top`, at first as they are there; `do` a call after the other."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self.root = _read(top)
        self._offsets: dict[tuple[int, str], int] = {}
        self._working: dict[int, str] = {}

    def do(self, call: Call) -> bool:
        """Whether it changed anything here, or made it last."""
        at = self._working.get(call.pid, str(self._top))
        match call.name:
            case "chdir":
                (self._working[call.pid],) = call.paths(at)
                return False
            case "openat" | "open" | "creat":
                return self._open(call)
            case "lseek":
                self._offsets[call.pid, call.files[0][0]] = call.returned
                return False
            case "write" | "writev" | "pwrite64" | "pwritev" | "sendfile" | "copy_file_range":
                return self._write(call)
            case "ftruncate" | "truncate":
                name = call.files[0][1] if call.name == "ftruncate" else call.paths(at)[0]
                return self._resize(name, int(call.text.rpartition(",")[2]))
            case "fsync" | "fdatasync":
                node = self._node(call.files[0][1])
                if node:
                    node.sync()
                return node is not None
            case "clone" | "clone3":
                return False
        return self._name(call.name, call.paths(at))

    def _open(self, call: Call) -> bool:
        self._offsets[call.pid, str(call.returned)] = 0
        place = self._place(call.opened)
        if place is None:
            return False
        folder, name = place
        made = name not in folder and "O_CREAT" in call.text
        if made:
            folder[name] = Node()
        if "O_APPEND" in call.text:
            del self._offsets[call.pid, str(call.returned)]
        cut = "O_TRUNC" in call.text and name in folder and bool(folder[name].data)
        if cut:
            folder[name].data = bytearray()
        return made or cut

    def _write(self, call: Call) -> bool:
        files = call.files
        number, path = files[-1] if call.name == "copy_file_range" else files[0]
        node = self._node(path)
        if node is None:
            return False
        if call.name in ("sendfile", "copy_file_range"):
            source = Path(files[0 if call.name == "copy_file_range" else 1][1])
            read = self._node(str(source))
            whole = bytes(read.data) if read else source.read_bytes()
            assert call.returned in (0, len(whole)), "copied in pieces"
            data = whole[: call.returned]
        else:
            data = call.data
        if call.name.startswith("pw"):
            start = int(call.text.rpartition(",")[2])
        else:
            start = self._offsets.get((call.pid, number), len(node.data))
            if (call.pid, number) in self._offsets:
                self._offsets[call.pid, number] = start + len(data)
        if start > len(node.data):
            node.data.extend(bytes(start - len(node.data)))
        node.data[start : start + len(data)] = data
        return bool(data)

    def _resize(self, path: str, size: int) -> bool:
        node = self._node(path)
        if node:
            del node.data[size:]
            node.data.extend(bytes(size - len(node.data)))
        return node is not None

    def _name(self, call: str, paths: list[str]) -> bool:
        """Make, move and remove names."""
        if call.startswith("symlink"):
            target, path = paths[0], paths[1]
            if place := self._place(path):
                place[0][place[1]] = Node(target=target)
            return place is not None
        places = [self._place(path) for path in paths]
        if not any(places):
            return False
        assert all(places), f"{call} from or to elsewhere: {paths}"
        (folder, name), *to = [place for place in places if place]
        if call.startswith("mkdir"):
            folder[name] = Node(entries={})
        elif call.startswith(("unlink", "rmdir")):
            del folder[name]
        elif call.startswith("rename"):
            node = folder.pop(name)
            to[0][0][to[0][1]] = node
        else:
            assert call.startswith("link"), call
            to[0][0][to[0][1]] = folder[name]
        return True

    def _place(self, path: str) -> tuple[dict[str, Node], str] | None:
        """The folder that a path is in, as programs see it, and its name there."""
        within = Path(path)
        if not within.is_relative_to(self._top) or within == self._top:
            return None
        node = self.root
        for part in within.relative_to(self._top).parts[:-1]:
            assert node.entries is not None
            if part not in node.entries:
                return None
            node = node.entries[part]
        assert node.entries is not None, path
        return node.entries, within.name

    def _node(self, path: str) -> Node | None:
        if Path(path) == self._top:
            return self.root
        place = self._place(path)
        return place[0].get(place[1]) if place else None

    def after_cut(self, lost: Lost, draw: random.Random, to: Path) -> None:
        """What is there when the power is back, in the folder `to`."""
        _write_tree(self.root, to, lambda node: node.after_cut(lost, draw))

    def as_seen(self) -> dict[str, bytes]:
        """Every file as programs see it."""
        seen: dict[str, bytes] = {}
        inner = [("", self.root)]
        for name, node in inner:
            if node.entries is not None:
                inner.extend((f"{name}/{each}", below) for each, below in node.entries.items())
            elif node.target is None:
                seen[name] = bytes(node.data)
        return seen


def _read(path: Path) -> Node:
    """As it is there, all of it on the disk."""
    if path.is_dir():
        node = Node(entries={each.name: _read(each) for each in path.iterdir()})
    else:
        node = Node(data=bytearray(path.read_bytes()))
    node.sync()
    return node


def _write_tree(node: Node, to: Path, state: Any) -> None:
    if node.target is not None:
        to.symlink_to(node.target)
    elif node.entries is None:
        to.write_bytes(state(node))
    else:
        to.mkdir()
        for name, below in state(node).items():
            _write_tree(below, to / name, state)


@dataclass(frozen=True)
class Outcome:
    """What a sweep leaves that counts."""

    numbers: list[Any]
    tables: list[str]
    models: list[dict[str, torch.Tensor]]

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Outcome)
        same = (self.numbers, self.tables) == (other.numbers, other.tables)
        return same and all(
            one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
            for one, two in zip(self.models, other.models, strict=True)
        )


def outcome(folder: Path) -> Outcome:
    jobs = [folder / "sweep" / str(number) for number in range(2)]
    assert all(result(job)["status"] == "completed" for job in jobs)
    return Outcome(
        numbers=[[numbers(job), result(job)["standing"], result(job)["dose"]] for job in jobs],
        tables=[(folder / "sweep" / f"{t}.csv").read_text() for t in ("scores", "differences")],
        models=[load_file(job / "model" / "model.safetensors") for job in jobs],
    )


def test_a_sweep_goes_on_after_a_power_cut_at_any_point(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("strace") is None:
        pytest.fail("strace is not installed: apt-get install strace")
    (top := tmp_path / "disk").mkdir()
    shutil.copytree(tiny_cache / "population", top / "cache" / "population")
    disk = Disk(top)
    shutil.copytree(top, tmp_path / "before")
    record = tmp_path / "calls"
    command = ["strace", "-f", "-y", "-xx", "-s", str(LONGEST), "--seccomp-bpf", "-o", str(record),
               "-e", f"trace={CALLS}", sys.executable, str(ROOT / "run.py"), *SWEEP]  # fmt: skip
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    undisturbed = outcome(top)
    acts = list(calls(record))
    (replayed := Disk(tmp_path / "before"))._top = top
    changing = [number for number, call in enumerate(acts) if replayed.do(call)]
    there = {f"/{path.relative_to(top)}": path.read_bytes()
             for path in top.rglob("*") if path.is_file() and not path.is_symlink()}  # fmt: skip
    assert replayed.as_seen() == there, "the record is of all that was done"

    monkeypatch.setattr(leases, "SILENCE", 1.0)  # a lease without content tells no dead holder
    # Figures are drawn from records and count for nothing: they would take most of the time.
    monkeypatch.setattr(plots, "save", lambda name, *_, **__: Path(name))
    draw = random.Random(0)
    cuts = sorted(draw.sample(changing, POINTS))
    held, fell, aside = Counter[Lost](), [], 0
    began, position = time.monotonic(), 0
    for number, cut in enumerate(cuts):
        lost = list(Lost)[number % len(Lost)]
        for call in acts[position : cut + 1]:
            disk.do(call)
        position = cut + 1
        left = tmp_path / "left"
        disk.after_cut(lost, draw, left)
        again = run_here(*SWEEP, cwd=left)
        aside += again.stdout.count("set aside")
        verified = store_command(["verify", f"--cache-dir={left / 'cache'}"])
        if (again.returncode, verified) == (0, 0) and outcome(left) == undisturbed:
            held[lost] += 1
            print(
                f"{number + 1}: lost {lost} after {acts[cut].name}: continued, and equal",
                flush=True,
            )
        else:
            fell.append(f"lost {lost} after {acts[cut]}: {again.stdout}{again.stderr}")
        shutil.rmtree(left)
    print(f"\n{len(changing)} operations, {POINTS} cuts, {time.monotonic() - began:.0f} s:")
    for lost, count in held.items():
        print(f"lost {lost}: {count} times continued, and equal")
    print(f"{aside} entries were damaged by it, set aside and made again")
    assert not fell, "\n".join(fell)
