"""Shared fixtures: one thread, the embedded population trained once, a small random model."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from aim_exp.populations import EmbeddedPopulation
from aim_exp.schema import register
from aim_exp.store import Store

torch.set_num_threads(1)
register()

ROOT = Path(__file__).parents[1]
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache_dir that holds the embedded population (seed 0) and nothing else, at first.

    The training is kept between test sessions until the code of the population changes.
    """
    sources = sorted((ROOT / "aim_exp" / "embedded").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    source = EmbeddedPopulation(name="tiny", merge=None, references={}, chat_template=None, seed=0)
    kept = Store(request.config.cache.mkdir(f"population-{digest}"))
    source.ensure(kept, source.resolve(kept))
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(kept.root / "population", cache / "population")
    return cache


@pytest.fixture(scope="session")
def tiny_population(tiny_cache: Path) -> Path:
    """The folder with `base`, `code`, `instruct` and `math`."""
    (folder,) = (tiny_cache / "population").iterdir()
    return folder


@pytest.fixture(scope="session")
def family(tiny_population: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, `a`, `b`: random bfloat16 Llamas that differ a little, a real tokenizer."""
    folder = tmp_path_factory.mktemp("family")
    for index, name in enumerate(("base", "a", "b")):
        torch.manual_seed(0)
        model = LlamaForCausalLM(llama_config()).bfloat16()
        torch.manual_seed(index)
        if index:
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(tiny_population / "base").save_pretrained(folder / name)
    return folder


def llama_config(*, tied: bool = False) -> LlamaConfig:
    """Two layers, the tiny tokenizer's vocabulary."""
    return LlamaConfig(
        vocab_size=768,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


@pytest.fixture
def cli(tmp_path: Path, tiny_cache: Path) -> Cli:
    """`python run.py ...` in an empty folder, with the session's cache."""

    def run(*arguments: str, cache: Path = tiny_cache) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments, f"cache_dir={cache}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "120"},
        )

    return run
