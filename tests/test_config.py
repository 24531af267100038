"""The configuration: every file composes, every key is read, imports go down only."""

import ast
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from input_lines import GROUPS
from omegaconf import DictConfig, OmegaConf, open_dict

from aim_exp.app import CONFIG_FOLDER
from aim_exp.config.schema import OPTIONS, RunConfig

FILES = sorted(
    path.relative_to(CONFIG_FOLDER).with_suffix("").as_posix()
    for path in CONFIG_FOLDER.rglob("*.yaml")
    if path.relative_to(CONFIG_FOLDER).parts[0] in GROUPS
)
REQUIRED = {
    "population/custom": ["population.base=DIR"],
    "method/checkpoint": ["method.path=DIR"],
    "calibration/text": ["calibration.path=FILE"],
    "benchmarks/lm_eval": ["benchmarks.tasks=[gsm8k]"],
}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("config", list(overrides))


def test_the_files_are_these() -> None:
    assert len(FILES) == 59
    assert len(OPTIONS) == 43
    others = {p.relative_to(CONFIG_FOLDER).parts[0] for p in CONFIG_FOLDER.rglob("*.yaml")}
    assert others - GROUPS == {"config.yaml", "experiment", "hydra"}


@pytest.mark.parametrize("file", FILES)
def test_every_option_composes_and_builds(file: str) -> None:
    group, option = file.split("/", 1)
    choice = [] if option == "default" else [f"{group}={option}"]
    config = composed(*choice, *REQUIRED.get(file, []))
    assert not OmegaConf.missing_keys(config)
    if group != "benchmarks":
        built = type(instantiate(config[group], _convert_="all"))
        own = OPTIONS.get(group if option == "default" else file)
        assert built is own or (own is None and built in OPTIONS.values())
    first_line = (CONFIG_FOLDER / f"{file}.yaml").read_text().splitlines()[0]
    assert first_line.startswith("# "), "an option says what it is for"


def test_what_must_be_given_is_missing_until_it_is() -> None:
    for file, given in REQUIRED.items():
        group, option = file.split("/", 1)
        missing = OmegaConf.missing_keys(composed(f"{group}={option}"))
        assert missing == {override.split("=")[0] for override in given}


def test_defaults_are_the_contract() -> None:
    config = composed()
    assert (config.omega, config.seed, config.dtype, config.device) == (0.4, 0, None, "auto")
    assert config.cache_dir == "outputs/cache"
    assert config.method.density == 0.2
    assert config.tracker.mode == "offline"
    assert config.population.seed == 0
    assert not any(config[key] for key in ("save_model", "plan", "debug", "fail_fast"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("omga=0.3", "Key 'omga' not in 'RunConfig'"),
        ("omega=abc", "could not be converted to Float"),
        ("seed=x", "could not be converted to Integer"),
        ("method.dnsity=0.3", "Key 'dnsity' not in 'Ties'"),
        ("method.scale=x", "could not be converted to Float"),
        ("calibration.n_samples=many", "could not be converted to Integer"),
        ("benchmarks.limt=3", "Key 'limt' not in 'BenchmarksConfig'"),
        ("evaluator.batch_size=x", "could not be converted to Integer"),
    ],
)
def test_hydra_refuses_wrong_keys_and_types(override: str, words: str) -> None:
    with pytest.raises(Exception, match="override") as refused:
        composed(override)
    assert words in f"{refused.value} {refused.value.__cause__}"


def test_tables_can_be_given_on_the_command_line() -> None:
    config = composed(
        "method.weight={code: 0.7, math: 0.3}",
        "population.references={joint: some/where}",
        "population.merge=[code,math]",
        "benchmarks.generation={max_gen_toks: 8}",
        "aim.exclude=['*norm*']",
    )
    assert config.method.weight == {"code": 0.7, "math": 0.3}
    assert config.population.references == {"joint": "some/where"}
    with open_dict(config):
        assert config.benchmarks.generation.max_gen_toks == 8


GROUND = {"types", "console", "errors", "pareto", "statistics"}
ROOMS: dict[str, set[str]] = {
    "tensors": set(),
    "store": set(),
    "checkpoint": {"tensors", "store"},
    "population": {"checkpoint", "store"},
    "aim": {"tensors", "checkpoint", "population"},
    "merge": {"aim", "tensors", "checkpoint"},
    "evaluate": {"population", "checkpoint", "store"},
    "diff": {"tensors", "store", "checkpoint", "aim"},
    "saliency": {"checkpoint", "aim"},
    "report": {"store", "checkpoint"},
    "run": {"tensors", "store", "checkpoint", "population", "aim", "merge", "evaluate", "tracking"},
    "tracking": {"run", "report", "store"},
}
"""What each room may import beside the ground; the rooms of `TOP`: all, and those before them."""
TOP = ("config", "cli", "launchers", "app", "main", "study")


def test_imports_go_down_only() -> None:
    allowed = {room: {room} | below | GROUND for room, below in ROOMS.items()}
    allowed |= dict.fromkeys(GROUND, GROUND)
    for number, room in enumerate(TOP, 1):
        allowed[room] = {*ROOMS, *GROUND, *TOP[:number]}
    rooms = {p.name.removesuffix(".py") for p in (ROOT / "aim_exp").iterdir()}
    assert rooms - {"__init__", "__pycache__"} == allowed.keys()
    seen, upward = 0, []
    for path in (ROOT / "aim_exp").rglob("*.py"):
        room = path.relative_to(ROOT / "aim_exp").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom) and node.module == "aim_exp":
                names = [f"aim_exp.{alias.name}" for alias in node.names]
            for name in names:
                if name.startswith("aim_exp."):
                    seen += 1
                    if name.split(".")[1] not in allowed[room]:
                        upward.append(f"{path.relative_to(ROOT)}: {name}")
    assert upward == []
    assert seen > 300


def test_a_light_start() -> None:
    """Help and refusals must not wait for the heavy libraries."""
    code = (
        "import sys, aim_exp.app, aim_exp.config.build, aim_exp.run.recording;"
        "heavy = {'torch', 'transformers', 'lm_eval', 'wandb', 'matplotlib', 'pymoo', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_option_and_explains_every_key() -> None:
    done = subprocess.run(
        [sys.executable, "run.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = set(re.findall(r"[\w/]+", done.stdout))
    options = {f.split("/", 1)[1] for f in FILES}
    experiments = {path.stem for path in (CONFIG_FOLDER / "experiment").glob("*.yaml")}
    assert options | experiments <= words
    assert len(experiments) == 10
    plain = {f.name for f in fields(RunConfig)} - GROUPS
    explained = set(re.findall(r"^  (\w+)=\S+ +\S", done.stdout, re.MULTILINE))
    assert explained == plain
