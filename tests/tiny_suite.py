"""The built-in suite, models that answer it, and tasks of one's own over its items."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from aim_exp.evaluate.spec import TINY_TASKS
from aim_exp.population.embedded.items import KINDS
from aim_exp.types import Benchmark, Suite

TINY = Suite(
    name="tiny",
    benchmarks=tuple(Benchmark(f"tiny_{kind}", f"aim_tiny_{kind}") for kind in KINDS),
    task_folder=TINY_TASKS,
    allow_code_execution=True,
)
SHORT = replace(TINY, limit=8)
MMLU, IFEVAL = (
    next(b for b in TINY.benchmarks if b.name == name) for name in ("tiny_mmlu", "tiny_ifeval")
)


def random_model(seed: int = 0, positions: int = 256) -> PreTrainedModel:
    return _random("llama", seed, max_position_embeddings=positions, tie_word_embeddings=False)


def sliding_model() -> PreTrainedModel:
    """Every second layer sees few tokens: its cache is another one."""
    return _random("gemma2", max_position_embeddings=256, head_dim=16, sliding_window=8)


def _random(model_type: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Two layers, the tiny tokenizer's vocabulary."""
    config = AutoConfig.for_model(
        model_type,
        vocab_size=768,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=3,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **settings,
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


class Oracle(LM):
    """Returns each item's own answer."""

    def generate_until(self, requests):
        return [request.doc["answer"] for request in requests]

    def loglikelihood(self, requests):
        return [
            (0.0 if request.args[1] == self._gold(request.doc) else -1.0, True)
            for request in requests
        ]

    @staticmethod
    def _gold(doc):
        return doc["choices"][doc["label"]] if "choices" in doc else doc["answer"]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def write_tasks(folder: Path, **files: str) -> Suite:
    """A suite of own task files, over the built-in items."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "items.py").write_text(
        "from datasets import Dataset\n"
        "from aim_exp.population.embedded.items import test_items\n"
        "def load(kind, **_):\n"
        "    return {'test': Dataset.from_list(test_items(kind))}\n"
    )
    return Suite(name="own", benchmarks=(), task_folder=folder)


def task_file(name: str, *more: str) -> str:
    return "\n".join(
        [
            f"task: {name}",
            "custom_dataset: !function items.load",
            "dataset_kwargs: {kind: gsm8k}",
            "test_split: test",
            "fewshot_split: test",
            "output_type: generate_until",
            "doc_to_text: prompt",
            "doc_to_target: answer",
            'target_delimiter: ""',
            'generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}',
            "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]",
            *more,
        ]
    )
