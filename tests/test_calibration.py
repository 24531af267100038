"""From texts to token blocks."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from aim_exp.aim.calibration import EmbeddedTexts, PileValidation, TextFile

TEXTS = [f"Text number {i} says: " + "so and so, " * (i % 7) for i in range(30)] + ["  "]


@pytest.fixture(scope="module")
def tokenizer(tiny_population: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_population / "base")


def text_file(path: Path, **settings: object) -> TextFile:
    recipe = {
        "n_samples": 10,
        "block_size": 16,
        "seed": 42,
        "add_special_tokens": True,
        "long_texts": "split",
        "skip_positions": 0,
        "offload": "none",
        "per_expert": None,
    }
    return TextFile(path=str(path), **(recipe | settings))  # type: ignore[arg-type]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"texts{suffix}"
    if suffix == ".txt":
        path.write_text("\n\n\n".join(TEXTS))
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    else:
        pq.write_table(pa.table({"text": TEXTS, "more": [0] * len(TEXTS)}), path)
    return path


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    calibration = text_file(written(tmp_path, suffix))
    assert calibration.problems() == []
    texts = [text.strip() for text in calibration.texts() if text.strip()]
    assert texts == [text.strip() for text in TEXTS if text.strip()]


@pytest.mark.parametrize("long_texts", ["skip", "split"])
def test_the_recipe_step_by_step(
    long_texts: str, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = written(tmp_path, ".jsonl")
    order = np.random.default_rng(42).permutation(len(TEXTS))
    samples: list[list[int]] = []
    for text in (TEXTS[i].strip() for i in order):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id
        if not text:
            continue
        if len(ids) <= 16:
            samples.append(ids)
        elif long_texts == "split":
            samples += [ids[i : i + 16] for i in range(0, len(ids), 16)]
    flat = [token for sample in samples[:10] for token in sample]
    expected = [flat[i : i + 16] for i in range(0, len(flat) - 15, 16)]
    blocks = text_file(path, long_texts=long_texts).blocks(tokenizer)
    assert blocks.ids.tolist() == expected
    assert blocks.n_texts == min(10, len(samples))
    assert blocks.n_tokens == blocks.ids.numel()


def test_without_special_tokens(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    blocks = text_file(written(tmp_path, ".txt"), add_special_tokens=False).blocks(tokenizer)
    assert tokenizer.bos_token_id not in blocks.ids


def test_too_little_text_for_a_block(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "short.txt"
    path.write_text("One short text.")
    with pytest.raises(ValueError, match=r"calibration\.block_size=16: .* lower block_size"):
        text_file(path).blocks(tokenizer)


def test_problems_are_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"words": 1}\n')
    fake = tmp_path / "fake.parquet"
    fake.write_text("no parquet")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    (tmp_path / "blank.txt").write_text("\n \n")
    cases = {
        tmp_path / "gone.txt": "no such file",
        tmp_path / "x.csv": "must be a file of kind .txt, .jsonl, .parquet",
        broken: "line 2 is no JSON object with a field text",
        fake: "no parquet file with a column text",
        binary: "cannot be read",
        tmp_path / "blank.txt": "holds no text",
    }
    for path, words in cases.items():
        (problem,) = text_file(path).problems()
        assert problem.startswith(f"calibration.path={path}: ")
        assert words in problem
        assert "\n" not in problem
    bad = text_file(written(tmp_path, ".txt"), n_samples=0, block_size=0, seed=-1, long_texts="x")
    assert len(bad.problems()) == 4


def test_the_embedded_texts_fill_the_default_recipe(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    embedded = EmbeddedTexts(
        n_samples=256,
        block_size=128,
        seed=42,
        add_special_tokens=True,
        long_texts="split",
        skip_positions=0,
        offload="none",
        per_expert=None,
    )
    blocks = embedded.blocks(tokenizer)
    assert blocks.n_texts == 256
    assert len(blocks.ids) > 50
    assert embedded.source(tmp_path) == embedded.source(tmp_path)


def test_the_key_follows_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, ".txt")
    before = text_file(path).spec(tmp_path / "memo")
    copy = tmp_path / "copy.txt"
    copy.write_bytes(path.read_bytes())
    assert text_file(copy).spec(tmp_path / "memo") == before
    path.write_text("Other text.")
    assert text_file(path).spec(tmp_path / "memo") != before


def pile(path: Path | None, **settings: object) -> PileValidation:
    recipe = {
        "n_samples": 5,
        "block_size": 16,
        "seed": 42,
        "add_special_tokens": True,
        "long_texts": "skip",
        "skip_positions": 0,
        "offload": "none",
        "per_expert": None,
    }
    where = None if path is None else str(path)
    return PileValidation(path=where, **(recipe | settings))  # type: ignore[arg-type]


def test_a_local_copy_of_the_pile(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lines = "".join(
        json.dumps({"text": text, "meta": {"pile_set_name": "Pile-CC"}}) + "\n" for text in TEXTS
    )
    packed = tmp_path / "val.jsonl.zst"
    packed.write_bytes(pa.compress(lines.encode(), codec="zstd", asbytes=True))
    plain = tmp_path / "val.jsonl"
    plain.write_text(lines)
    same = text_file(plain, long_texts="skip", n_samples=5).blocks(tokenizer)
    for path in (packed, plain):
        assert pile(path).problems() == []
        assert list(pile(path).texts()) == TEXTS
        blocks = pile(path).blocks(tokenizer)
        assert blocks.ids.tolist() == same.ids.tolist()
    assert (
        pile(plain).source(tmp_path)
        == pile(plain).source(tmp_path)
        != pile(packed).source(tmp_path)
    )


def test_no_pile_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = pile(tmp_path / "gone.zst").problems()
    assert problem.endswith("gone.zst: no such file")
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")
    (problem,) = pile(None).problems()
    assert problem.startswith("calibration=pile_val: mit-han-lab/pile-val-backup cannot be had")
    assert problem.endswith("give a local copy of val.jsonl.zst")
    assert "\n" not in problem
