"""LiveHFLM: greedy decoding, shared contexts and batches answer as lm-eval's own model does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from tiny_suite import SHORT, random_model, sliding_model

from aim_exp.evaluate.fast.greedy import StopAtText, decode
from aim_exp.evaluate.harness import Harness
from aim_exp.evaluate.hf import LiveHFLM
from aim_exp.evaluate.responses import kept_responses
from aim_exp.population.embedded.items import KINDS


def test_new_weights_give_new_responses(tokenizer, tmp_path: Path) -> None:
    live, other = random_model(0), random_model(1)
    harness = Harness.in_memory(live, tokenizer, batch_size=16)
    first = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "first")
    with torch.no_grad():
        for parameter, value in zip(live.parameters(), other.parameters(), strict=True):
            parameter.copy_(value)
    second = harness.evaluate(SHORT, SHORT.benchmarks, tmp_path / "second")
    fresh = Harness.in_memory(other, tokenizer, batch_size=16).evaluate(
        SHORT, SHORT.benchmarks, tmp_path / "fresh"
    )
    assert second == fresh
    assert second["tiny_ifeval"].items != first["tiny_ifeval"].items


def test_batches_answer_as_single_requests_do(tokenizer, tmp_path: Path) -> None:
    single, batched = (
        Harness.in_memory(random_model(), tokenizer, batch_size=size).evaluate(
            SHORT, SHORT.benchmarks, tmp_path / str(size)
        )
        for size in (1, 64)
    )
    for name in (f"tiny_{kind}" for kind in KINDS):
        samples = (map(json.loads, found[name].items) for found in (single, batched))
        for one, many in zip(*samples, strict=True):
            assert one["metrics"] == pytest.approx(many["metrics"], rel=1e-4)
            if name != "tiny_mmlu":
                assert one["text"] == many["text"]
            else:
                likelihoods = [
                    [choice["loglikelihood"] for choice in sample["choices"]]
                    for sample in (one, many)
                ]
                assert likelihoods[0] == pytest.approx(likelihoods[1], rel=1e-4)


@pytest.mark.parametrize("generation", [{}, {"repetition_penalty": 1.2}], ids=["plain", "penalty"])
@pytest.mark.parametrize("make", [random_model, sliding_model])
def test_responses_are_those_of_lm_evals_own_model(make, generation, tokenizer, tmp_path) -> None:
    """Rows that leave the batch, logits that are not made: nothing changes in any answer."""
    model, suite = make(), replace(SHORT, generation=generation)
    found = {}
    for name, harness in (
        ("ours", Harness.in_memory(model, tokenizer, batch_size=16)),
        ("theirs", Harness(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16))),
    ):
        harness.evaluate(suite, suite.benchmarks, tmp_path / name)
        found[name] = kept_responses(tmp_path / name)
    assert len(found["ours"]) == 5 * 8 + 8 * 4 + 5 * 8
    assert set(found["ours"]) == set(found["theirs"])
    for key, response in found["ours"].items():
        is_text = isinstance(response, str)
        assert found["theirs"][key] == (response if is_text else pytest.approx(response, rel=1e-5))


def test_rows_leave_the_batch_when_they_end(tokenizer) -> None:
    """The model sees fewer rows, and each answer is what the row gives alone."""
    model, prompts = random_model(), torch.randint(5, 700, (8, 6))
    sizes: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: sizes.append(len(inputs["input_ids"])), with_kwargs=True
    )

    def answers(rows: torch.Tensor) -> list[list[int]]:
        ends = StopAtText(tokenizer, ["a", "e", "</s>"], rows.shape[1])
        found = model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            max_length=rows.shape[1] + 24,
            do_sample=False,
            stopping_criteria=[ends],
            pad_token_id=0,
            custom_generate=decode,
        )
        return [row[rows.shape[1] :] for row in found.tolist()]

    together = answers(prompts)
    assert sizes[0] == 8
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 8
    for row, found in zip(prompts, together, strict=True):
        (alone,) = answers(row[None])
        assert found == alone + [0] * (len(found) - len(alone))


@pytest.mark.parametrize("make", [random_model, sliding_model])
def test_a_shared_context_is_computed_once(make, tokenizer) -> None:
    """Two contexts of different lengths, six continuations: 2 rows, then 6."""
    model = make()
    ours, theirs = (
        kind(pretrained=model, tokenizer=tokenizer, batch_size=16) for kind in (LiveHFLM, HFLM)
    )
    contexts = {tuple(range(40, 43)): [[5, 6, 7], [8]]}
    contexts[tuple(range(5, 25))] = [[9], [30, 31], [32, 33, 34, 35, 36], [37, 38]]
    requests = [(None, list(c), n) for c, further in contexts.items() for n in further]
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    greedy = model(torch.tensor([range(40, 43)])).logits[0, -1].argmax().item()
    requests.append((None, list(range(40, 43)), [greedy]))

    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    *found, best = ours._loglikelihood_tokens(requests)
    assert seen == [(2, 20), (7, 4)]
    assert best[1]
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        assert one == (pytest.approx(other[0], rel=1e-5), other[1])


def test_requests_that_must_be_cut_are_lm_evals(tokenizer) -> None:
    lms = [
        kind(pretrained=random_model(), tokenizer=tokenizer, batch_size=16, max_length=12)
        for kind in (LiveHFLM, HFLM)
    ]
    requests = [(None, list(range(5, 25)), [30]), (None, [5, 6], [7, 8])]
    ours, theirs = (lm._loglikelihood_tokens(requests, disable_tqdm=True) for lm in lms)
    assert ours == theirs


def test_only_a_very_small_model_takes_larger_batches_by_itself(tokenizer) -> None:
    for positions, expected in ((256, (1 << 28) // (2 * 2 * 48 * 256 * 4)), (1 << 16, 64)):
        model = random_model(positions=positions)
        assert LiveHFLM(pretrained=model, tokenizer=tokenizer, batch_size=None).batch_size == (
            expected
        )
