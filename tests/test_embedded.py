"""The embedded population: its text, items, tokenizer and training."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aim_exp.population import training_state
from aim_exp.population.embedded import code, corpus, phases, trainer, training
from aim_exp.population.embedded.batches import IGNORED, own_document_mask, training_rows
from aim_exp.population.embedded.corpus import calibration_texts, training_text
from aim_exp.population.embedded.facts import CAPITALS
from aim_exp.population.embedded.items import KINDS, test_items, training_examples
from aim_exp.population.embedded.tokenizer import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    VOCABULARY_SIZE,
    train_tokenizer,
)
from aim_exp.population.embedded.trainer import new_model, reproducible, train

test_items.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  # not a test

GENERATIVE = tuple(name for name in KINDS if name != "mmlu")
CODE = ("humaneval", "mbpp")
ITEM_COUNTS = {name: 112 if name == "mmlu" else 150 for name in KINDS}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


def examples(kind: str, count: int) -> list[Any]:
    return list(islice(training_examples(kind, Random(7)), count))


# --- text ---------------------------------------------------------------------------------


def test_calibration_texts_are_distinct_passages_of_reasonable_length() -> None:
    texts = calibration_texts()
    assert 150 <= len(texts) == len(set(texts)) <= 400
    assert all(30 <= len(text.split()) <= 120 for text in texts)


@pytest.mark.parametrize(("texts", "least"), [(calibration_texts, 300), (corpus.test_texts, 150)])
def test_no_sentence_that_is_kept_back_is_trained(
    texts: Callable[[], list[str]], least: int
) -> None:
    trained = " ".join(training_text())
    sentences = [s for text in texts() for s in re.split(r"(?<=[.:]) ", text)]
    long_ones = [sentence for sentence in sentences if len(sentence.split()) >= 12]
    assert len(long_ones) > least
    assert [sentence for sentence in long_ones if sentence in trained] == []


# --- items --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_fixed_and_distinct(kind: str) -> None:
    items = test_items(kind)
    random.seed(1)
    assert items == test_items(kind)
    assert len({item["prompt"] for item in items}) == len(items) == ITEM_COUNTS[kind]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("phase", [phases.BASE, *phases.EXPERTS], ids=lambda phase: phase.name)
def test_no_test_prompt_is_in_the_training_stream(
    phase: phases.Phase, seed: int, tokenizer: Tokenizer
) -> None:
    ids, labels, _ = training_rows(tokenizer, phase, seed)
    assert ids.shape == (phase.steps * phases.ROWS, phases.ROW_LENGTH)
    not_learnt = ids.where(labels == IGNORED, PAD_ID).tolist()
    decoded = "".join(tokenizer.decode_batch(not_learnt, skip_special_tokens=False))
    trained = set(decoded.replace("<pad>", "").split("<s>"))
    for kind in set(phase.mix) & set(KINDS):
        assert len(trained & {example.prompt for example in examples(kind, 2000)}) > 10
        prompts = {item["prompt"] for item in test_items(kind)}
        assert len(prompts) == ITEM_COUNTS[kind]
        assert not prompts & trained


@pytest.mark.parametrize("kind", CODE)
def test_code_is_held_out_by_composition(kind: str) -> None:
    def compositions(prompts: list[str]) -> set[str]:
        return {re.sub(r"\b([fghkmxy]|nums|items|xs|\d+(th)?)\b", "_", text) for text in prompts}

    tested = compositions([item["prompt"] for item in test_items(kind)])
    trained = compositions([example.prompt for example in examples(kind, 5000)])
    assert len(tested) >= 30
    assert len(trained) > 45
    assert not tested & trained


def test_facts_are_trained_in_other_wordings_only() -> None:
    trained = {example.prompt: example.answer for example in examples("mmlu", 5000)}
    assert len(trained) == 2 * len(CAPITALS)
    for item in test_items("mmlu"):
        assert item["prompt"] not in trained
        assert item["choices"][item["label"]] in trained.values()
        assert len(set(item["choices"])) == 4
    labels = [item["label"] for item in test_items("mmlu")]
    assert all(labels.count(label) > 15 for label in range(4))


def passes(item: dict[str, Any], answer: str) -> bool:
    try:
        exec("\n".join([item.get("prelude", ""), item["prompt"] + answer, item["tests"]]), {})
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("kind", CODE)
def test_gold_programs_pass_and_other_programs_fail(kind: str) -> None:
    items = test_items(kind)
    assert all(passes(item, item["answer"]) for item in items)
    caught = [
        not passes(item, _with_other_constant(item["answer"]))
        for item in items
        if re.search(r"\d", item["answer"])
    ]
    assert len(caught) > 100
    # Some constants never matter: the smallest of the 8 lowest is that of the 7 lowest.
    assert sum(caught) / len(caught) > 0.9


def _with_other_constant(program: str) -> str:
    """The last one-digit constant replaced by a neighbour."""
    *_, match = re.finditer(r"\b[2-9]\b", program)
    other = int(match[0]) - 1 or 9
    return program[: match.start()] + str(other) + program[match.end() :]


def test_each_code_item_tests_by_several_asserts() -> None:
    for kind, arguments in (("humaneval", code.NUMBERS), ("mbpp", code.LISTS)):
        for item in test_items(kind):
            assert item["tests"].count(f"assert {item['entry_point']}(") == len(arguments) >= 3


@pytest.mark.parametrize("kind", ["math", "gsm8k"])
def test_results_are_those_of_the_sums(kind: str) -> None:
    for item in test_items(kind):
        start = item["prompt"].removeprefix("Compute: ") if kind == "math" else ""
        *sums, result = (start + item["answer"]).split("=")
        assert result == item["result"]
        assert {eval(one) for one in sums} == {int(result)}


def test_instruction_kinds_are_many() -> None:
    kinds = {item["instruction"] for item in test_items("ifeval")}
    assert len(kinds) > 20


# --- tokenizer ----------------------------------------------------------------------------


def test_tokenizer_gives_text_back_and_begins_with_bos(tiny_population: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_population / "base")
    assert len(tokenizer) == VOCABULARY_SIZE
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    texts = calibration_texts() + [item["prompt"] for name in KINDS for item in test_items(name)]
    texts += ["  two  spaces , and\ttabs\n\n", "naïve – 日本 🙂", "x=12345.67 [1, -2]", ""]
    for text in texts:
        ids = tokenizer(text).input_ids
        assert ids[0] == BOS_ID
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_answer_tokenise_alike_apart_and_together(
    kind: str, tokenizer: Tokenizer
) -> None:
    pairs = [(example.prompt, example.answer) for example in examples(kind, 300)]
    for item in test_items(kind):
        answers = item["choices"] if kind == "mmlu" else [item["answer"]]
        pairs += [(item["prompt"], answer) for answer in answers]
    for prompt, answer in pairs:
        assert prompt == prompt.rstrip()
        assert "\n" not in answer
        apart = (
            tokenizer.encode(prompt).ids + tokenizer.encode(answer, add_special_tokens=False).ids
        )
        assert tokenizer.encode(prompt + answer).ids == apart


# --- training -----------------------------------------------------------------------------


def test_the_names_come_without_torch() -> None:
    program = (
        "import json, sys\n"
        "from aim_exp.population.embedded import training\n"
        "found = training.recipe(3), training.EXPERTS, training.SPECIALTY, training.DTYPE\n"
        "print(json.dumps([*found, 'torch' in sys.modules]))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    recipe, experts, specialty, dtype, has_torch = json.loads(done.stdout)
    assert recipe == training.recipe(3) != training.recipe(4)
    assert recipe["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert "+" not in recipe["torch"]
    assert experts == ["code", "instruct", "math"] == sorted(specialty)
    assert sorted(name for names in specialty.values() for name in names) == sorted(
        f"tiny_{kind}" for kind in KINDS
    )
    assert dtype == "float32"
    assert not has_torch


def test_rows_hold_whole_documents_and_learn_answers_only(tokenizer: Tokenizer) -> None:
    ids, labels, _ = training_rows(tokenizer, replace(phases.BASE, steps=40), 0)
    assert ((labels == IGNORED) | (labels == ids)).all()
    assert (ids[:, 0] == BOS_ID).all()
    assert (labels[ids == PAD_ID] == IGNORED).all()
    assert (ids == PAD_ID).float().mean() < 0.15
    for row, learnt in zip(ids.tolist(), (labels != IGNORED).tolist(), strict=True):
        if learnt[0]:  # a window of text
            assert all(learnt)
            assert EOS_ID not in row
        else:
            assert row.count(BOS_ID) == row.count(EOS_ID)
            ended = [token for token, is_learnt in zip(row, learnt, strict=True) if is_learnt]
            assert ended[-1] == EOS_ID


def test_documents_of_a_row_do_not_see_each_other() -> None:
    ids = torch.tensor([[BOS_ID, 9, BOS_ID, 8]])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert own_document_mask((ids == BOS_ID).cumsum(dim=1)).int().tolist() == [[expected]]


def test_training_depends_on_the_seed_and_nothing_else(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def weights(phase: phases.Phase, seed: int) -> dict[str, Tensor]:
        with reproducible(seed):
            model = new_model()
            train(model, tokenizer, replace(phase, steps=3), seed, tmp_path / phase.name)
        return model.state_dict()

    threads = torch.get_num_threads()
    for phase in (phases.BASE, phases.EXPERTS[0]):
        first = weights(phase, 0)
        torch.manual_seed(5)
        state = torch.get_rng_state()
        again, other = weights(phase, 0), weights(phase, 1)
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_training_that_was_cut_off_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Within a phase, in the middle of base's and of an expert's, from the last step kept."""
    short = [replace(phase, steps=4) for phase in (phases.BASE, *phases.EXPERTS)]
    monkeypatch.setattr(phases, "BASE", short[0])
    monkeypatch.setattr(phases, "EXPERTS", tuple(short[1:]))
    monkeypatch.setattr(training_state, "EVERY", 0.0)
    monkeypatch.setattr(training_state, "SHARE", math.inf)
    loss, ends, steps = trainer._loss, [], 0

    def counted(model: Any, batch: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps in ends:
            raise KeyboardInterrupt
        return loss(model, batch)

    monkeypatch.setattr(trainer, "_loss", counted)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    training.build_population(whole, 0)
    assert steps == 16
    ends[:] = 16 + 3, 16 + 4, 16 + 13
    states = []
    for _ in ends:
        with pytest.raises(KeyboardInterrupt):
            training.build_population(cut, 0)
        states += [path.name for path in cut.glob("*.after-*")]
    assert states == ["base.after-2", "base.after-2", "instruct.after-2"]
    (cut / "instruct.after-9").mkdir()  # one that is damaged is not taken up
    training.build_population(cut, 0)
    assert steps == 32 + len(ends), "no step is done twice"
    files = [path.relative_to(whole) for path in whole.glob("*/*")]
    assert len(files) == 4 * 5
    assert len([*cut.rglob("*")]) == len([*whole.rglob("*")]) == 4 * 6
    for file in files:
        assert (whole / file).read_bytes() == (cut / file).read_bytes()


@pytest.mark.parametrize("name", ["base", *training.EXPERTS])
def test_models_are_ordinary_folders(name: str, tiny_population: Path) -> None:
    folder = tiny_population / name
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(
        4.8e5, rel=0.01
    )
    assert model.generation_config.eos_token_id == EOS_ID


def test_experts_know_their_specialty_best(tiny_population: Path, tokenizer: Tokenizer) -> None:
    models = {
        name: AutoModelForCausalLM.from_pretrained(tiny_population / name)
        for name in ("base", *training.EXPERTS)
    }
    for kind in GENERATIVE:
        shares = {name: _share_right(models[name], tokenizer, kind) for name in models}
        (expert,) = (name for name, own in training.SPECIALTY.items() if f"tiny_{kind}" in own)
        assert max(shares, key=lambda name: shares[name]) == expert, (kind, shares)
        assert 0 < shares["base"] < shares[expert]


@torch.inference_mode()
def _share_right(model: Any, tokenizer: Tokenizer, kind: str) -> float:
    """The share of items whose every token, `</s>` included, greedy decoding would give."""
    items = test_items(kind)
    prompts = [tokenizer.encode(item["prompt"]).ids for item in items]
    wholes = [[*tokenizer.encode(item["prompt"] + item["answer"]).ids, EOS_ID] for item in items]
    length = max(map(len, wholes))
    ids = torch.tensor([whole + [PAD_ID] * (length - len(whole)) for whole in wholes])
    hits = model(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
    right = [
        bool(hit[len(prompt) - 1 : len(whole) - 1].all())
        for hit, prompt, whole in zip(hits, prompts, wholes, strict=True)
    ]
    return sum(right) / len(right)
