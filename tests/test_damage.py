"""Damaged checkpoints: each is refused in one line, before any work, that names file and key."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli
from safetensors.torch import load_file, save_file

from aim_exp.checkpoint.files import CONFIG_FILE, GENERATION_CONFIG, INDEX_FILE, SINGLE_FILE
from aim_exp.checkpoint.fit import fit_problems, loading_problem
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.store.run_record import FILE_NAME

NORM = "model.norm.weight"
DEEP = "[" * 100_000
NOT_JSON = {"empty": "", "cut": "{", "endless": DEEP, "NUL": "\0" * 9, "latin": b'{"a": "\xe9"}'}
NO_TABLE = {"list": "[1]", "number": "7", "null": "null", "text": '"x"'}
Damage = Callable[[Path], object]


def written(name: str, content: str | bytes) -> Damage:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def index(places: Any) -> Damage:
    """One file by an index that holds `places`; with one more where it is a table."""

    def damage(folder: Path) -> None:
        right = dict.fromkeys(Checkpoint(folder, "").tensors, "w.safetensors")
        (folder / SINGLE_FILE).rename(folder / "w.safetensors")
        content = {**right, **places} if isinstance(places, dict) else places
        (folder / INDEX_FILE).write_text(json.dumps({"weight_map": content}))

    return damage


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / CONFIG_FILE).read_text()) | changes
        (folder / CONFIG_FILE).write_text(json.dumps(content))

    return damage


def header(entry: Any, *, of: str = NORM) -> Damage:
    """The header's entry changed by a table, or replaced."""

    def damage(folder: Path) -> None:
        data = (folder / SINGLE_FILE).read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        content = json.loads(data[8 : 8 + length])
        content[of] = {**content[of], **entry} if isinstance(entry, dict) else entry
        text = json.dumps(content).encode()
        (folder / SINGLE_FILE).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return damage


def tensors(**changes: torch.Tensor | None) -> Damage:
    def damage(folder: Path) -> None:
        named = {name.replace("__", "."): tensor for name, tensor in changes.items()}
        content = {**load_file(folder / SINGLE_FILE), **named}
        save_file({n: t for n, t in content.items() if t is not None}, folder / SINGLE_FILE)

    return damage


def norm(tensor: torch.Tensor | None) -> Damage:
    return tensors(model__norm__weight=tensor)


def gone(folder: Path) -> None:
    (folder / SINGLE_FILE).unlink()


def directory(name: str) -> Damage:
    return lambda folder: ((folder / name).unlink(), (folder / name).mkdir())


def damages() -> Iterator[tuple[str, str, Damage]]:
    """What is wrong, words of the line that says so, and how it came to be."""
    for name in (CONFIG_FILE, INDEX_FILE, "tokenizer.json", "tokenizer_config.json",
                 GENERATION_CONFIG):  # fmt: skip
        words = "tokenizer" if name.startswith("tokenizer") else name
        for kind, content in {**NOT_JSON, **NO_TABLE}.items():
            if kind in ("latin", "text") and words == "tokenizer":
                continue  # transformers takes them
            change = written(name, content)
            yield (
                f"{name} {kind}",
                words,
                (
                    (lambda folder, change=change: (gone(folder), change(folder)))
                    if name == INDEX_FILE
                    else change
                ),
            )
    for places in ([1], 7, None, "w.safetensors"):
        yield f"weight_map {places}", "weight_map", index(places)
    for file, words in {
        7: "weight_map", None: "weight_map", "x.safetensors": "lacks x.safetensors",
        "": "lacks", ".": "lacks .", "a\0b": "weight_map", "x" * 5000: "lacks xxx",
        "../w.safetensors": "outside", "a/../../w": "outside", "/etc/passwd": "outside",
        "..\\w.safetensors": "outside",
    }.items():  # fmt: skip
        yield f"weight_map {NORM}={str(file)[:20]}", words, index({NORM: file})
    for file in (["w.safetensors"], {"a": 1}):
        yield f"weight_map {NORM}={file}", "weight_map", index({NORM: file})
    yield (
        "weight_map lists what is not there",
        "w.safetensors lacks no",
        index({"no": "w.safetensors"}),
    )
    for key, values in {
        "text_config": ("x", [1]), "model_type": (7, None, "mistral"), "hidden_size": ("a", 0),
        "num_hidden_layers": (-1, 1, "two"), "vocab_size": (None, 769), "rope_scaling": ([1],),
        "num_attention_heads": (0,), "num_key_value_heads": (3,), "rope_parameters": ("x",),
        "quantization_config": ("x", {}, {"quant_method": "mine"}), "hidden_act": ("no", 7),
        "max_position_embeddings": ("many",), "eos_token_id": ("x",), "pad_token_id": (10**9,),
        "head_dim": ("x",), "layer_types": (7,), "rms_norm_eps": ("x",), "auto_map": (7,),
        "intermediate_size": (10**12,), "initializer_range": (None,), "id2label": ([1],),
    }.items():  # fmt: skip
        for value in values:
            yield f"{key}={value}", "", config(**{key: value})
    for kind, content in {
        "empty": b"", "short": b"abc", "a page": b"<html>404</html>" * 50, "zeros": bytes(4096),
        "a pointer": b"version https://git-lfs.github.com/spec/v1\nsize 3\n",
        "endless": struct.pack("<Q", len(DEEP)) + DEEP.encode(), "too long": b"\xff" * 8,
    }.items():  # fmt: skip
        yield f"weights: {kind}", SINGLE_FILE, written(SINGLE_FILE, content)
    for entry in (None, [1], {"dtype": "X9"}, {"shape": "24"}, {"shape": [-24]}, {"shape": [25]},
                  {"shape": [2**62] * 2}, {"data_offsets": [5, 1]},
                  {"data_offsets": [0, 10**12]}):  # fmt: skip
        yield f"header {entry}", SINGLE_FILE, header(entry)
    for entry in ([1], {"a": 1}):
        yield f"header's metadata {entry}", SINGLE_FILE, header(entry, of="__metadata__")
    for kind, change in {"cut": lambda data: data[:-100], "more": lambda data: data + b"x"}.items():
        yield (
            f"weights: {kind}",
            SINGLE_FILE,
            (
                lambda folder, change=change: (folder / SINGLE_FILE).write_bytes(
                    change((folder / SINGLE_FILE).read_bytes())
                )
            ),
        )
    one = torch.ones(24)
    for tensor in (None, torch.zeros(7), torch.zeros(()), torch.zeros(0), torch.zeros(1, 24),
                   one.long(), one.bool(), one.to(torch.float8_e4m3fn), one.cfloat()):  # fmt: skip
        kind = tensor if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        yield f"{NORM} {kind}", NORM, norm(tensor)
    for name in ("", "a\nerror: b", "\x1b[31m", "../../../a"):
        words = "a tensor cannot be called" if not name.isprintable() or not name else name
        yield f"a tensor called {name!r}", words, tensors(**{name: one})
    for name in (SINGLE_FILE, CONFIG_FILE):
        yield f"{name} is a folder", name, directory(name)
    yield (
        "an adapter alone",
        "adapter",
        lambda folder: (gone(folder), written("adapter_config.json", "{}")(folder)),
    )
    for key, value in {"eos_token_id": "x", "max_new_tokens": -1}.items():
        yield (
            f"{GENERATION_CONFIG} {key}={value}",
            GENERATION_CONFIG,
            written(GENERATION_CONFIG, json.dumps({key: value})),
        )
    for setting in ('{"eos_token": 7}', '{"tokenizer_class": 7}', '{"added_tokens_decoder": "x"}'):
        yield (
            f"tokenizer_config.json {setting}",
            "tokenizer",
            written("tokenizer_config.json", setting),
        )


DAMAGES = [
    pytest.param(words, damage, id=kind.replace("\0", "NUL")) for kind, words, damage in damages()
]


def test_these_are_many() -> None:
    assert len(DAMAGES) >= 120


@pytest.mark.parametrize(("words", "damage"), DAMAGES)
def test_a_damaged_checkpoint_is_told_in_one_line(
    words: str, damage: Damage, family: Path, tmp_path: Path
) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
    damage(tmp_path / "a")
    base, model = Checkpoint(tmp_path / "base", "base"), Checkpoint(tmp_path / "a", "a")
    (problem,) = fit_problems(base, [model]) or filter(None, [loading_problem(model)])
    assert problem.startswith("a: ")
    assert problem.isprintable()
    assert words in problem


@pytest.mark.parametrize("whose", ["base", "a"])
@pytest.mark.parametrize("damage", [index([1]), written(GENERATION_CONFIG, "[1]")], ids=["1", "2"])
def test_a_run_is_refused_and_recorded(
    whose: str, damage: Damage, cli: Cli, family: Path, tmp_path: Path
) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
    damage(tmp_path / whose)
    done = cli("population=custom", "population.base=base", "population.experts={a: a}",
               "tracker=none", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {whose}: ")
    record = json.loads((tmp_path / "run" / FILE_NAME).read_text())
    assert (record["status"], record["error"]) == ("failed", line.removeprefix("error: "))
    assert {path.name for path in tmp_path.iterdir()} == {"base", "a", "run"}
