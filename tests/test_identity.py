"""What models are called by, and pickled weights that become safetensors."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aim_exp.checkpoint.hub import download
from aim_exp.checkpoint.identity import resolve_model
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
    found, expected = Checkpoint(model.path, "old"), Checkpoint(family / "a", "a")
    assert set(found.tensors) == set(expected.tensors)
    assert all(torch.equal(found.tensor(n), expected.tensor(n)) for n in expected.tensors)
    assert (model.path / "tokenizer.json").is_file()
    before = (model.path / "config.json").stat().st_mtime_ns
    download(resolve_model("old", str(source), "population.base", tmp_path / "digests"))
    assert (model.path / "config.json").stat().st_mtime_ns == before


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


def test_identity_follows_the_content(family: Path, tmp_path: Path) -> None:
    def identity(folder: Path) -> str:
        return resolve_model("x", str(folder), "population.base", tmp_path / "digests").identity

    copy = tmp_path / "copy"
    shutil.copytree(family / "a", copy)
    assert identity(copy) == identity(family / "a") != identity(family / "b")
    (copy / "README.md").write_text("words")
    assert identity(copy) == identity(family / "a")
    config = copy / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    assert identity(copy) != identity(family / "a")


@pytest.mark.parametrize("source", ["no/such/folder/here", "../gone", "gone"])
def test_what_is_neither_folder_nor_hub_id_is_named(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"population.base={source}: no such folder; give"):
        resolve_model("base", source, "population.base", tmp_path)
