"""Nothing lost: what is damaged in the cache is noticed, named, set aside and made again."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import run_here
from conftest import LINE
from run_records import numbers, result
from safetensors.numpy import load_file, save_file

from aim_exp.cli.explain import explain
from aim_exp.population.embedded import training
from aim_exp.store import files
from aim_exp.store.__main__ import main as store_command
from aim_exp.store.entries import Store
from aim_exp.store.stage_spec import StageSpec

SPEC = StageSpec("stage", 1, {"a": 1})

Damage = Callable[[Path], Path]
"""Does it below an entry; the file that is named."""


def flipped(file: str) -> Damage:
    """One bit in the middle of the last values, size and times as they were."""

    def damage(entry: Path) -> Path:
        path = entry / file
        content, status = bytearray(path.read_bytes()), path.stat()
        content[-3] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return path

    return damage


def another_digit(entry: Path) -> Path:
    path = entry / "scores.json"
    text = path.read_text()
    place = next(i for i, letter in enumerate(text) if letter in "0123456789")
    path.write_text(f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}")
    return path


def cut(file: str, share: float = 0.5) -> Damage:
    def damage(entry: Path) -> Path:
        size = (entry / file).stat().st_size
        os.truncate(entry / file, int(share * size))
        return entry / file

    return damage


def zeroed(entry: Path) -> Path:
    path = entry / "math" / "model.safetensors"
    save_file({k: np.zeros_like(v) for k, v in load_file(path).items()}, path, {"format": "pt"})
    return path


def swapped(entry: Path) -> Path:
    first, second = (entry / name / "model.safetensors" for name in ("code", "math"))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    return first


def foreign(entry: Path) -> Path:
    """Another entry of the stage in its place."""
    other = next(path for path in sorted(entry.parent.iterdir()) if path != entry)
    shutil.rmtree(entry)
    shutil.copytree(other, entry)
    return entry


def without_digests(entry: Path) -> Path:
    (entry / "digests.json").unlink()
    return entry / "digests.json"


def a_file(entry: Path) -> Path:
    shutil.rmtree(entry)
    entry.touch()
    return entry / "digests.json"


def a_file_more(entry: Path) -> Path:
    (entry / "more").touch()
    return entry / "more"


def changed_line(entry: Path) -> Path:
    path, lines, number = a_text(entry)
    key, value, checksum = json.loads(lines[number])
    lines[number] = json.dumps([key, "none", checksum]) + "\n"
    path.write_text("".join(lines))
    assert value != "none"
    return path


def zeros_in_line(entry: Path) -> Path:
    path, lines, number = a_text(entry)
    lines[number] = "\0" * 40 + lines[number][40:]
    path.write_text("".join(lines))
    return path


def a_text(entry: Path) -> tuple[Path, list[str], int]:
    """A file of responses, its lines, and which of them holds a text.

    Asked again it is the same; a likelihood, in a batch of its own, is so but for its last digits.
    """
    (path,) = entry.glob("responses*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    return (
        path,
        lines,
        next(n for n, line in enumerate(lines) if isinstance(json.loads(line)[1], str)),
    )


def of_another_model(entry: Path) -> Path:
    (path,) = entry.glob("responses*.jsonl")
    other = next(p for p in sorted(entry.parent.glob("*/responses*.jsonl")) if p != path)
    path.write_bytes(other.read_bytes())
    return path


ROUNDS: dict[str, list[tuple[str, Damage]]] = {
    "bits": [
        ("population", zeroed),
        ("saliency", flipped("saliency.safetensors")),
        ("scores 0", another_digit),
        ("scores 1", cut("items.jsonl.gz", 0)),
        ("responses 0", changed_line),
        ("weights", flipped("relaxation.json")),
    ],
    "files": [
        ("population", swapped),
        ("saliency", cut("second_moments.safetensors")),
        ("scores 0", foreign),
        ("scores 1", without_digests),
        ("responses 0", zeros_in_line),
        ("weights", a_file),
    ],
    "folders": [
        ("population", cut("base/model.safetensors")),
        ("saliency", flipped("spec.json")),
        ("scores 0", a_file_more),
        ("scores 1", cut("digests.json")),
        ("responses 0", of_another_model),
        ("weights", cut("made.json", 0)),
    ],
}
"""Those of a round are done at once; with `responses 0` go the scores that rest on them."""


def entry_of(cache: Path, run: Path, where: str) -> Path:
    """`population`, `saliency`, `weights`; `scores N` and `responses N` of the merged model."""
    stage, _, number = where.partition(" ")
    merged = result(run)["models"][-1]
    if stage in ("weights", "responses"):
        return cache / stage / merged["keys"][stage]
    if stage == "scores":
        return cache / stage / [score["key"] for score in merged["scores"].values()][int(number)]
    (entry,) = (cache / stage).iterdir()
    return entry


@pytest.mark.parametrize("kind", ROUNDS)
def test_damage_is_noticed_named_and_healed(
    kind: str, there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, run = there / "cache", there / "run"
    (population,) = (cache / "population").iterdir()
    trained = shutil.copytree(population, there / "trained")

    def train(folder: Path, seed: int) -> None:
        """Its numbers are the same every time: `test_embedded.py`."""
        for name in ("base", "code", "instruct", "math"):
            shutil.copytree(trained / name, folder / name)

    monkeypatch.setattr(training, "build_population", train)
    named = [damage(entry_of(cache, run, where)) for where, damage in ROUNDS[kind]]
    assert len(named) == 6

    assert store_command(["verify", f"--cache-dir={cache}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(" entries, 6 damages")
    assert {line.partition(": ")[0] for line in lines[:-1]} == set(map(str, named))

    done = run_here(*LINE, "cache_dir=cache", "hydra.run.dir=again", cwd=there)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if "set aside" in line]
    assert {line.split(": ")[1] for line in told} == set(map(str, named))
    assert len(told) == 6, "a line each"
    assert numbers(there / "again") == numbers(run)
    assert store_command(["verify", f"--cache-dir={cache}"]) == 0
    again = run_here(*LINE, "cache_dir=cache", "hydra.run.dir=again", cwd=there)
    assert "set aside" not in again.stdout


def test_a_report_does_not_keep_the_damaged_file(there: Path) -> None:
    """A run's own copy may be a link to it."""
    entry = entry_of(there / "cache", there / "run", "saliency")
    whole = load_file(entry / "saliency.safetensors")
    named = flipped("saliency.safetensors")(entry)
    kept = there / "run" / result(there / "run")["saliency"]
    kept.unlink()
    kept.hardlink_to(named)
    assert run_here(*LINE, "cache_dir=cache", "hydra.run.dir=run", cwd=there).returncode == 0
    again = load_file(kept)
    assert again.keys() == whole.keys()
    assert all((again[name] == whole[name]).all() for name in whole)


def test_a_cache_that_cannot_be_written_serves_what_it_has(there: Path) -> None:
    """Whoever may write everywhere sees it by files where folders would be."""
    cache = there / "cache"
    owned = ("begun", "damaged", "digests", "layouts", "leases", "partial", "processes")
    for name in owned:
        shutil.rmtree(cache / name, ignore_errors=True)
        (cache / name).touch()
    done = run_here(*LINE, "cache_dir=cache", "hydra.run.dir=again", cwd=there)
    assert done.returncode == 0, done.stderr
    assert numbers(there / "again") == numbers(there / "run")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no room left on the disk for {title}; make some"),
        (errno.EDQUOT, "no room left on the disk for {title}; make some"),
        (errno.EROFS, "{root}/x cannot be written, and {title} is not there yet"),
    ],
)
def test_a_disk_without_room_names_the_key_and_the_path(
    number: int, words: str, tmp_path: Path
) -> None:
    def make(folder: Path) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))

    with pytest.raises(ValueError, match=r"^cache_dir=") as raised:
        Store(tmp_path).get_or_make(SPEC, make)
    told = f"cache_dir={tmp_path}: {words.format(root=tmp_path, title=SPEC.title)}"
    assert str(raised.value).startswith(told)
    assert not list((tmp_path / "partial").iterdir())

    def elsewhere(folder: Path) -> None:
        raise OSError(number, os.strerror(number), "/elsewhere/x")

    with pytest.raises(OSError, match="/elsewhere/x"):
        Store(tmp_path).get_or_make(SPEC, elsewhere)


def test_what_counts_is_on_the_disk_before_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file and folder is synced, then renamed, then the folder it is renamed in."""
    acts: list[str] = []
    sync, rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        acts.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        acts.append("rename")
        return rename(path, target)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)

    def make(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "deep").touch()

    entry = Store(tmp_path).get_or_make(SPEC, make)
    partial, place = acts[acts.index("rename") - 3 :].index("rename"), acts.index("rename")
    assert partial == 3
    contents = {"deep", "sub", "digests.json", "made.json", "spec.json"}
    assert contents <= set(acts[:place])
    assert len(acts[:place]) == len(contents) + 1, "and the folder itself"
    assert acts[place + 1 :] == [entry.parent.name]


def test_what_another_process_took_away_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took this one for dead, and what bears its mark for left over."""
    sync, taken = files._sync, list[Path]()

    def take(path: Path) -> None:
        if not taken:
            taken.append(path)
            path.unlink()
        sync(path)

    monkeypatch.setattr(files, "_sync", take)
    files.write_whole(tmp_path / "a.json", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "x"
    assert taken[0].name.startswith(".")
    with pytest.raises(FileNotFoundError):
        files.write_whole(tmp_path / "gone" / "a.json", "x")


RENAMED = {
    "store/files.py": 1,  # publish
    "store/entries.py": 3,  # what is unfinished or damaged, out of the way
    "store/leases.py": 3,
    "store/housekeeping.py": 1,
    "store/processes.py": 1,  # a living process's note
    "evaluate/responses.py": 1,  # damaged lines, out of the way
    "checkpoint/writer.py": 1,  # an earlier model, out of the way
    "checkpoint/digests.py": 1,  # notes, checked when they are read
    "report/files.py": 1,  # drawn again from the records
}


def test_whatever_else_is_renamed_does_not_count() -> None:
    package = Path(files.__file__).parents[1]
    renames = re.compile(r"os\.(?:replace|rename)\(|\.rename\(|partial\.replace\(")
    found = {
        path.relative_to(package).as_posix(): len(renames.findall(path.read_text()))
        for path in package.rglob("*.py")
    }
    assert {name: number for name, number in found.items() if number} == RENAMED


def test_a_full_disk_without_a_name_is_told_with_its_keys() -> None:
    told = explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert told.startswith("no room left on the disk; make some, or set cache_dir, hydra.run.dir")
