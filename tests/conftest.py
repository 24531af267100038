"""Shared fixtures: one thread, the embedded population trained once, small models and data."""

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
from benchmark_rows import write_datasets
from command_line import run_here
from families import FAMILIES, save_family
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aim_exp.config.schema import register
from aim_exp.population.embedded.tokenizer import train_tokenizer
from aim_exp.population.sources import EmbeddedPopulation
from aim_exp.store.entries import Store

torch.set_num_threads(1)
register()

ROOT = Path(__file__).parents[1]
LINE = ("benchmarks.limit=2", "calibration.n_samples=4", "omega=0.4", "tracker=none")
"""A run of a few seconds."""
Cli = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One test that has the embedded population trained first, the others that need it last.

    Then another worker has something to do for the minute that it takes.
    """
    items.sort(key=_needs_population, reverse=True)
    items[1:] = sorted(items[1:], key=_needs_population)


def _needs_population(item: pytest.Item) -> bool:
    return "tiny_cache" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def tiny_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache_dir that holds the embedded population (seed 0) and nothing else, at first.

    The training is kept between test sessions until the code of the population changes.
    """
    sources = sorted((ROOT / "aim_exp" / "population" / "embedded").glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    source = EmbeddedPopulation(name="tiny", merge=None, references={}, chat_template=None, seed=0)
    kept = Store(request.config.cache.mkdir(f"population-{digest}"))
    source.ensure(kept, source.resolve(kept))
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(kept.root / "population", cache / "population")
    return cache


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    """A folder with `cache` and `run`, the run of `LINE` as nothing disturbed it."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copytree(tiny_cache / "population", folder / "cache" / "population")
    done = run_here(*LINE, "cache_dir=cache", "hydra.run.dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def there(once: Path, tmp_path: Path) -> Path:
    """A copy of it, to be disturbed."""
    return shutil.copytree(once, tmp_path / "copy")


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
    """`python run.py ...` in an empty folder, with the session's cache, in this process."""

    def run(*arguments: str, cache: Path = tiny_cache) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, f"cache_dir={cache}", cwd=tmp_path)

    return run


@pytest.fixture
def process(tmp_path: Path, tiny_cache: Path) -> Cli:
    """The same in a process of its own, where that is what is tested."""

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


@pytest.fixture(params=FAMILIES)
def saved(
    request: pytest.FixtureRequest, tmp_path: Path, tiny_population: Path
) -> tuple[str, Path]:
    """A family's name and the folder of its three models."""
    save_family(request.param, tmp_path, tiny_population / "base")
    return request.param, tmp_path


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer().save(str(path))
    return path


@pytest.fixture
def tokenizer(tokenizer_file: Path) -> PreTrainedTokenizerFast:
    """The embedded population's, without a chat template; a test may give it one."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's six datasets, a few rows each; three of MMLU's subjects."""
    folder = tmp_path_factory.mktemp("data")
    write_datasets(folder)
    return folder


@pytest.fixture(scope="session")
def nltk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lm-eval looks for; none of the instructions asked here reads it."""
    folder = tmp_path_factory.mktemp("nltk")
    (folder / "tokenizers" / "punkt_tab").mkdir(parents=True)
    return folder


@pytest.fixture
def nltk_data(nltk_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.data.path", [str(nltk_folder)])


@pytest.fixture
def away_from_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no settings of the user's, and a server that refuses connections."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    for name in ("SILENT", "DIR", "DATA_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", "")  # so that it is as before afterwards
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("aim_exp.tracking.wandb.WandbTracker._unreachable", False)
