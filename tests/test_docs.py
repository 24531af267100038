"""The documentation: commands with keys that exist, links that lead somewhere."""

import re
from importlib.util import find_spec

import pytest
from conftest import ROOT
from documentation import PAGES, Block, blocks
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from aim_exp.app import CONFIG_FOLDER
from aim_exp.config import axes

BLOCKS = [block for page in PAGES for block in blocks(page)]
OWN_OPTIONS = {
    f"{group}={name}"
    for block in BLOCKS
    if block.path and block.path.startswith("conf/")
    for group, name in [block.path.removeprefix("conf/").removesuffix(".yaml").split("/")]
}
"""Options that a guide adds: `method=median`."""


def test_the_pages_are_these() -> None:
    assert [page.relative_to(ROOT).as_posix() for page in PAGES] == [
        "CONTRIBUTING.md", "README.md", "docs/benchmark.md", "docs/calibration.md",
        "docs/cluster.md", "docs/glossary.md", "docs/method.md", "docs/models.md", "docs/paper.md",
        "docs/population.md", "docs/python.md", "docs/reliability.md", "docs/speed.md",
        "docs/statistics.md", "docs/study.md", "docs/tracker.md", "docs/vllm.md", "docs/wandb.md",
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


COMMANDS = [
    pytest.param(arguments, id=f"{block.page.name}:{block.line} {' '.join(arguments)}")
    for block in BLOCKS
    for arguments in block.runs
    if not OWN_OPTIONS & {part for argument in arguments for part in argument.split(",")}
]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_have_keys_that_exist(arguments: list[str]) -> None:
    parsed = OverridesParser.create().parse_overrides(
        [argument for argument in arguments if not argument.startswith("-")]
    )
    axes.teach(BasicSweeper)
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        compose("config", jobs[0])


def test_every_command_is_known() -> None:
    """What is neither a run nor a module of ours stands in a list here."""
    others = {".", "make", "pip", "git", "cd", "cat", "wandb", "mlflow"}
    modules = 0
    for block in (b for b in BLOCKS if b.language == "bash"):
        for command in block.commands:
            if command[:2] == ["python", "-m"]:
                assert find_spec(command[2]), command
                modules += 1
            else:
                assert command[0] in others or command[:2] == ["python", "run.py"], command
    assert modules == 24
    assert len(COMMANDS) >= 13


def test_notes_are_of_a_known_kind() -> None:
    kinds = {
        "measures: run small",
        "not run: needs the hub",
        "not run: needs vLLM",
        "not run: needs an account",
        "not run: a server that stays",
        "not run: trains for minutes",
        "run by .ci/run",
        "run by tests/test_frames.py",
    }
    assert {block.note for block in BLOCKS if isinstance(block, Block)} <= {None, *kinds}
