"""What models are called by, and pickled weights that become safetensors."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from conftest import Cli
from safetensors.torch import load_file, save_file

from aim_exp.checkpoint.digests import file_digest
from aim_exp.checkpoint.hub import download
from aim_exp.checkpoint.identity import identified, resolve_model
from aim_exp.checkpoint.reader import Checkpoint


def pickled(family: Path, folder: Path, files: int) -> Path:
    """A copy of model `a` whose weights are in `files` pickled files, as old ones are."""
    shutil.copytree(family / "a", folder)
    content = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    content["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    names = sorted(content)
    for index in range(files):
        part = {name: content[name] for name in names[index::files]}
        number = f"-{index + 1:05d}-of-{files:05d}" if files > 1 else ""
        torch.save(part, folder / f"pytorch_model{number}.bin")
    return folder


@pytest.mark.parametrize("files", [1, 3])
def test_pickled_weights_are_converted_once(files: int, family: Path, tmp_path: Path) -> None:
    source = pickled(family, tmp_path / "old", files)
    model = resolve_model("old", str(source), "population.base", tmp_path / "digests")
    assert model.origin == source
    assert not model.path.exists()
    download(model)
    checkpoint, expected = Checkpoint(model.path, "old"), Checkpoint(family / "a", "a")
    assert set(checkpoint.tensors) == set(expected.tensors)
    assert all(torch.equal(checkpoint.tensor(n), expected.tensor(n)) for n in expected.tensors)
    assert (model.path / "tokenizer.json").is_file()
    before = (model.path / "config.json").stat().st_mtime_ns
    download(resolve_model("old", str(source), "population.base", tmp_path / "digests"))
    assert (model.path / "config.json").stat().st_mtime_ns == before


def nested(content: dict[str, torch.Tensor]) -> object:
    return {"state_dict": {"model": content}, "step": 3}


def parameters(content: dict[str, torch.Tensor]) -> object:
    """With attributes, as some trainers leave them, and two names for one piece of memory."""
    found = {name: torch.nn.Parameter(tensor) for name, tensor in content.items()}
    for parameter in found.values():
        parameter.sharded = False  # pyright: ignore[reportAttributeAccessIssue]
    return found


def prefixed(content: dict[str, torch.Tensor]) -> object:
    return {f"module.{name}": tensor for name, tensor in content.items()}


@pytest.mark.parametrize("kind", [dict, nested, parameters, prefixed])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_every_honest_kind(
    kind: Callable[[dict[str, torch.Tensor]], object], zipped: bool, family: Path, tmp_path: Path
) -> None:
    source = pickled(family, tmp_path / "old", 1)
    content = load_file(family / "a" / "model.safetensors")
    torch.save(kind(content), source / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    shutil.copy(family / "b" / "model.safetensors", source / "adapter_model.safetensors")
    model = resolve_model("old", str(source), "population.base", tmp_path / "digests")
    download(model)
    checkpoint = Checkpoint(model.path, "old")
    assert set(checkpoint.tensors) == set(content)
    assert all(torch.equal(checkpoint.tensor(name), content[name]) for name in content)


@pytest.mark.parametrize("content", [[1], {"epoch": 3}, {"w": torch.ones(2), "epoch": 3}])
def test_a_pickle_of_other_things_is_named(content: object, family: Path, tmp_path: Path) -> None:
    source = pickled(family, tmp_path / "old", 1)
    torch.save(content, source / "pytorch_model.bin")
    model = resolve_model("old", str(source), "population.base", tmp_path / "digests")
    with pytest.raises(ValueError, match=r"not a file of weights only \(it holds (no|epoch)"):
        download(model)


class Harmful:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("unpickled",)


def test_code_in_a_pickle_is_not_run(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pickled(family, tmp_path / "old", 1)
    torch.save({"w": Harmful()}, source / "pytorch_model.bin")
    model = resolve_model("old", str(source), "population.base", tmp_path / "digests")
    with pytest.raises(ValueError, match="not a file of weights only"):
        download(model)
    assert capsys.readouterr().out == ""
    assert not model.path.exists()


def identity(folder: Path, memo: Path) -> str | None:
    return identified(resolve_model("x", str(folder), "population.base", memo), memo).identity


def test_identity_follows_the_content(family: Path, tmp_path: Path) -> None:
    memo, copy = tmp_path / "digests", tmp_path / "copy"
    shutil.copytree(family / "a", copy)
    first = identity(copy, memo)
    assert first == identity(family / "a", memo) != identity(family / "b", memo)
    assert first
    assert first.startswith("blake3:")
    (copy / "README.md").write_text("words")
    shutil.copy(family / "b" / "model.safetensors", copy / "adapter_model.safetensors")
    assert identity(copy, memo) == first  # what nobody reads
    for name in ("tokenizer_config.json", "config.json"):
        (copy / name).write_text((copy / name).read_text() + " ")
        assert identity(copy, memo) != first
        shutil.copy(family / "a" / name, copy / name)
    assert identity(copy, memo) == first


NORM = "model.norm.weight"


def sharded(source: Path, folder: Path, first: str, last: str) -> Path:
    """A copy of a model with the last norm in the file `first`, all other tensors in `last`."""
    content = load_file(source / "model.safetensors")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    weight_map = {name: first if name == NORM else last for name in content}
    for file in (first, last):
        (folder / file).parent.mkdir(exist_ok=True)
        part = {name: content[name] for name in content if weight_map[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def raise_norm(file: Path) -> None:
    save_file({NORM: load_file(file)[NORM] + 1}, file, {"format": "pt"})


def test_what_the_index_names_is_what_is_digested(family: Path, tmp_path: Path) -> None:
    memo = tmp_path / "digests"
    model = sharded(family / "a", tmp_path / "model", "parts/1.safetensors", "2.safetensors")
    checkpoint, whole = Checkpoint(model, "x"), Checkpoint(family / "a", "a")
    assert all(torch.equal(checkpoint.tensor(n), whole.tensor(n)) for n in whole.tensors)
    below = model / "parts" / "1.safetensors"
    seen = [identity(model, memo)]
    raise_norm(below)
    seen.append(identity(model, memo))
    # A link is its target, as in the hub's cache.
    target = tmp_path / "blobs" / "0123"
    target.parent.mkdir()
    below.rename(target)
    below.symlink_to(os.path.relpath(target, below.parent))
    assert identity(model, memo) == seen[-1]
    raise_norm(target)
    seen.append(identity(model, memo))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("place", ["../other/model.safetensors", "parts/../../other", "absolute"])
def test_an_index_that_leads_out_of_the_folder_is_refused(
    place: str, family: Path, tmp_path: Path
) -> None:
    shutil.copytree(family / "b", tmp_path / "other")
    if place == "absolute":
        place = str(tmp_path / "other" / "model.safetensors")
    model = sharded(family / "a", tmp_path / "model", "1.safetensors", "2.safetensors")
    index = model / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][NORM] = place
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"x: .* places {NORM} in .*, outside the model's folder"):
        identity(model, tmp_path / "digests")
    with pytest.raises(ValueError, match="outside the model's folder"):
        _ = Checkpoint(model, "x").tensors


def test_the_index_decides_between_two_files(family: Path, tmp_path: Path) -> None:
    model = sharded(family / "a", tmp_path / "model", "1.safetensors", "2.safetensors")
    own, other = model / "1.safetensors", model / "2.safetensors"
    norm = load_file(own)[NORM]
    save_file({**load_file(other), NORM: norm + 1}, other, {"format": "pt"})
    assert torch.equal(Checkpoint(model, "x").tensor(NORM), norm)
    save_file({"other": norm}, own, {"format": "pt"})
    with pytest.raises(ValueError, match=f"1.safetensors lacks {NORM}, which the index places"):
        _ = Checkpoint(model, "x").tensors


def test_digests_are_the_algorithms_own(tmp_path: Path) -> None:
    memo, file = tmp_path / "digests", tmp_path / "file"
    for content in (b"", b"words", os.urandom(3_000_000)):
        file.write_bytes(content)
        assert file_digest(file, memo) == f"blake3:{blake3(content).hexdigest()}"
        expected = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert file_digest(file, memo, "sha256") == expected


@pytest.mark.parametrize("damage", ["", "blake3:", "{digest}", "{digest} 00", "blake3:00 {check}"])
def test_a_damaged_note_is_no_digest(damage: str, tmp_path: Path) -> None:
    memo, file = tmp_path / "digests", tmp_path / "file"
    file.write_bytes(b"words")
    expected = file_digest(file, memo)
    (note,) = memo.iterdir()
    digest, check = note.read_text().split()
    note.write_text(damage.format(digest=digest, check=check))
    assert file_digest(file, memo) == expected
    assert note.read_text().split() == [digest, check]


def test_a_file_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    memo, file = tmp_path / "digests", tmp_path / "file"
    file.write_bytes(b"one")
    first, status = file_digest(file, memo), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(file, memo) != first


@pytest.mark.parametrize("method", ["ties", "checkpoint"])
def test_no_identity_where_no_key_needs_one(
    method: str, cli: Cli, family: Path, tmp_path: Path
) -> None:
    given = (f"method.path={family / 'b'}",) if method == "checkpoint" else ()
    done = cli(
        "population=custom", f"population.base={family / 'base'}", f"method={method}", *given,
        f"population.experts={{a: {family / 'a'}, b: {family / 'b'}}}", "benchmarks=none",
        "omega=null", "tracker=none", "save_model=true", "hydra.run.dir=run",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [model["identity"] for model in record["models"]] == [None] * 4
    assert all(model["keys"] == {} for model in record["models"])
    assert not (tmp_path / "cache" / "digests").exists()
    assert not (tmp_path / "cache" / "weights").exists()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert "local, not digested" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize("source", ["no/such/folder/here", "../gone", "gone"])
def test_what_is_neither_folder_nor_hub_id_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"population.base={source}: no such folder; give"):
        resolve_model("base", source, "population.base", tmp_path)
