"""lm-eval round one model, in memory or in another process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.utils import handle_non_serializable
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aim_exp.console import Advance
from aim_exp.errors import EvaluationError
from aim_exp.evaluate.code.execution import runner
from aim_exp.evaluate.gold import (
    BITS_PER_BYTE,
    LOGLIKELIHOOD,
    GoldOutcomes,
    gold_columns,
    gold_outcomes,
)
from aim_exp.evaluate.hf import LiveHFLM
from aim_exp.evaluate.jackknife import jackknife_stderr
from aim_exp.evaluate.loading import TASK, LoadedTask, directions, load_task
from aim_exp.evaluate.metrics import Scores
from aim_exp.evaluate.near_ties import NEAR, TIES
from aim_exp.evaluate.quiet import TRUNCATIONS, quiet_transformers, silence_lm_eval
from aim_exp.evaluate.responses import RememberingLM, ResponseLog
from aim_exp.evaluate.results import Evaluated
from aim_exp.evaluate.rng import own_rng
from aim_exp.statistics import ROUNDING, clustered_stderr
from aim_exp.types import Benchmark, Suite

# lm-eval's decorator hides this one from a type checker.
_evaluate: Any = evaluate


class Harness:
    """Scores one of lm-eval's models, whose weights may be replaced between evaluations."""

    def __init__(self, lm: LM, notes: Sequence[str] = ()) -> None:
        silence_lm_eval()
        self._lm: Any = lm
        self._notes = notes
        """Warnings that all its scores carry."""

    @classmethod
    def in_memory(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | None,
        max_length: int | None = None,
    ) -> Harness:
        """Round a live model, on the device where it is.

        `batch_size` is in requests, None leaves it to the size of the model; `max_length` is in
        tokens, None takes the model's own limit.
        """
        lm = LiveHFLM(
            pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=max_length
        )
        return cls(lm)

    def evaluate(
        self,
        suite: Suite,
        benchmarks: Sequence[Benchmark],
        responses: Path,
        advance: Advance = lambda items: None,
    ) -> dict[str, Evaluated]:
        """Every benchmark's scores and samples, by its name; as `each` gives them."""
        each = self.each(suite, benchmarks, responses, advance)
        return {benchmark.name: evaluated for benchmark, evaluated in each}

    def each(
        self,
        suite: Suite,
        benchmarks: Sequence[Benchmark],
        responses: Path,
        advance: Advance = lambda items: None,
    ) -> Iterator[tuple[Benchmark, Evaluated]]:
        """Every benchmark with its scores and samples, as soon as it is done.

        `responses` is the folder of this very model's responses: those in it are not computed
        again, new ones are added as they come. `advance(n)` is told of every n items done,
        of `loading.n_items` in all. The global random generators are left as they were.
        EvaluationError if a task cannot be loaded, or asked as the suite says.
        """
        self._use_template(suite)
        with ResponseLog(responses) as log, quiet_transformers():
            lm = RememberingLM(self._lm, log, advance, suite.stops)
            for benchmark in benchmarks:
                yield benchmark, self._score(lm, suite, benchmark)

    def _score(self, lm: RememberingLM, suite: Suite, benchmark: Benchmark) -> Evaluated:
        loaded = load_task(suite, benchmark)
        self._check_lengths(benchmark, loaded)
        self._lm.gold_columns = gold_columns(loaded.tasks["tasks"])
        before = TRUNCATIONS.count
        evaluated = evaluate_task(lm, suite, benchmark)
        warnings = [*evaluated.scores.warnings, *self._notes]
        if cuts := TRUNCATIONS.count - before:
            warnings.append(
                f"benchmark {benchmark.name}: prompts longer than the model's "
                f"{self._lm.max_length} tokens lost their start, {cuts} times"
            )
        return replace(evaluated, scores=replace(evaluated.scores, warnings=warnings))

    def _use_template(self, suite: Suite) -> None:
        """lm-eval takes a template's name but does not pass it on to the tokenizer."""
        own = suite.chat_template and suite.template is None
        if own and not getattr(self._lm.tokenizer, "chat_template", None):
            raise EvaluationError(
                f"benchmarks.chat_template={str(suite.chat_template).lower()}: "
                "the tokenizer has no chat template; set it to false"
            )
        named = suite.chat_template if isinstance(suite.chat_template, str) else None
        template = suite.template or named
        self._lm.chat_template_args = {"chat_template": template} if template else {}

    def _check_lengths(self, benchmark: Benchmark, loaded: LoadedTask) -> None:
        for task in loaded.tasks["tasks"].values():
            if task.get_config("output_type") == "generate_until":
                if self._lm.tokenizer.eos_token_id is None:
                    raise EvaluationError(
                        f"benchmark {benchmark.name}: the model's tokenizer has no eos_token, "
                        "which ends answers; name it in its tokenizer_config.json"
                    )
                generation = task.get_config("generation_kwargs")
                tokens = generation.get("max_gen_toks", self._lm.max_gen_toks)
                if tokens >= self._lm.max_length:
                    raise EvaluationError(
                        f"benchmarks.generation.max_gen_toks={tokens}: benchmark "
                        f"{benchmark.name} leaves no room for a prompt in the model's "
                        f"{self._lm.max_length} tokens; set it lower"
                    )


def evaluate_task(lm: LM | RememberingLM, suite: Suite, benchmark: Benchmark) -> Evaluated:
    """`lm`, any of lm-eval's models, on one benchmark."""
    loaded = load_task(suite, benchmark)
    loaded.reseed()
    ties = TIES.count
    with own_rng():
        results = _evaluate(
            lm=lm,
            task_dict=loaded.tasks,
            limit=suite.limit,
            log_samples=True,
            system_instruction=suite.system_instruction,
            apply_chat_template=suite.chat_template,
            fewshot_as_multiturn=suite.fewshot_as_multiturn,
            confirm_run_unsafe_code=suite.allow_code_execution,
        )
        gold = gold_outcomes(lm, loaded.tasks["tasks"], results["samples"])
    scores = _scores(loaded, benchmark.cluster, results, gold)
    warnings = _warnings(benchmark, loaded, ties=TIES.count - ties, n=scores.n)
    return Evaluated(replace(scores, warnings=warnings), list(_items(results, gold)))


def _warnings(benchmark: Benchmark, loaded: LoadedTask, *, ties: int, n: int) -> list[str]:
    warnings = [
        text if name == loaded.name else f"{name}: {text}"
        for name, rehearsal in loaded.rehearsals.items()
        for text in rehearsal.warnings
    ]
    if loaded.absent:
        n_scored, n_absent = len(loaded.tasks["tasks"]), len(loaded.absent)
        names = ", ".join(loaded.absent[:3]) + (", ..." if n_absent > 3 else "")
        warnings.append(
            f"scored on {n_scored} of its {n_scored + n_absent} tasks; "
            f"benchmarks.data_dir has no folder for {names}"
        )
    if any(task.get_config("unsafe_code") for task in loaded.tasks["tasks"].values()):
        warnings += [f"on this system {text}" for text in runner().missing]
    if ties:
        warnings.append(
            f"in {ties} of {n} items the best choices are as likely as each other (within "
            f"{NEAR:g}); the first of them counts"
        )
    return [f"benchmark {benchmark.name}: {text}" for text in warnings]


def _scores(loaded: LoadedTask, cluster: str | None, results: Any, gold: GoldOutcomes) -> Scores:
    row = results["results"].get(loaded.name, {})  # a group's own row holds its mean
    metrics: dict[str, float] = {}
    stderrs: dict[str, float | None] = {}
    for key, value in row.items():
        metric, comma, filter_name = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            metrics[key] = float(value)
            stderr = row.get(f"{metric}_stderr,{filter_name}")
            if isinstance(stderr, str | None):
                stderr = _jackknifed(loaded, results, metric, filter_name)
            stderrs[key] = None if stderr is None else float(stderr)
            if cluster:
                stderrs[key] = _clustered(cluster, results, key, metrics[key])
    for key, estimate in gold.estimates.items():
        metrics[key], stderrs[key] = estimate
    return Scores(
        task=loaded.name,
        n=row.get("sample_len", 0),
        metrics=metrics,
        stderrs=stderrs,
        higher_is_better={LOGLIKELIHOOD: True, BITS_PER_BYTE: False, **directions(loaded)},
        num_fewshot=_shots(loaded),
    )


def _clustered(cluster: str, results: Any, key: str, score: float) -> float | None:
    """The standard error of a mean over items that come in families; None of another score."""
    metric, _, filter_name = key.partition(",")
    pairs = [
        (sample[metric], task if cluster == TASK else str(sample["doc"][cluster]))
        for task, samples in results["samples"].items()
        for sample in samples
        if sample["filter"] == filter_name and isinstance(sample.get(metric), int | float)
    ]
    if not pairs or abs(fmean(value for value, _ in pairs) - score) > ROUNDING:
        return None
    stderr = clustered_stderr(*zip(*pairs, strict=True))
    return None if math.isnan(stderr) else stderr


def _jackknifed(loaded: LoadedTask, results: Any, metric: str, filter_name: str) -> float | None:
    """The standard error of a task's own aggregate; None for a group's."""
    if loaded.name not in loaded.tasks["tasks"]:
        return None
    samples = results["samples"][loaded.name]
    items = [sample[metric] for sample in samples if sample["filter"] == filter_name]
    aggregate = (loaded.tasks["tasks"][loaded.name].aggregation() or {})[metric]
    return jackknife_stderr(aggregate, items)


def _shots(loaded: LoadedTask) -> int | None:
    """The examples in a prompt; None where a group's tasks differ."""
    shots = {task.get_config("num_fewshot") for task in loaded.tasks["tasks"].values()}
    return shots.pop() if len(shots) == 1 else None


def _items(results: Any, gold: GoldOutcomes) -> Iterator[str]:
    for task, samples in results["samples"].items():
        for sample in samples:
            likelihood = gold.items.get((task, sample["doc_id"]))
            item = {
                "task": task,
                "doc_id": sample["doc_id"],
                "filter": sample["filter"],
                "prompt": sample["arguments"][0][0],
                "target": sample["target"],
                **_answer(sample["arguments"], sample["resps"]),
                "filtered": sample["filtered_resps"],
                "metrics": {name: sample[name] for name in sample["metrics"]}
                | ({LOGLIKELIHOOD: likelihood.nats} if likelihood else {}),
            }
            yield json.dumps(item, default=handle_non_serializable, ensure_ascii=False)


def _answer(requests: Sequence[Any], responses: Sequence[Any]) -> dict[str, Any]:
    """Choices with their log-likelihoods, or what was generated; a request has its repeats."""
    first = responses[0][0]
    if isinstance(first, str):
        texts = [text for repeats in responses for text in repeats]
        return {"choices": None, "text": texts[0] if len(texts) == 1 else texts}
    if not isinstance(first, Sequence):  # the log-likelihood of the whole prompt
        return {"choices": [{"text": "", "loglikelihood": float(first)}], "text": None}
    return {
        "choices": [
            {"text": request[1], "loglikelihood": float(value), "greedy": bool(greedy)}
            for request, ((value, greedy), *_) in zip(requests, responses, strict=True)
        ],
        "text": None,
    }
