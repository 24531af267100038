"""A command as one types it, without the seconds that a new process takes for its imports."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from aim_exp import console
from aim_exp.cli.callbacks import Launch
from aim_exp.cli.plan_printer import PLANS
from aim_exp.main import main

COLUMNS = 120


def run_here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python run.py ARGUMENTS` in `cwd`: its exit status and what it wrote."""
    out, err = StringIO(), StringIO()
    with ExitStack() as stack:
        stack.enter_context(chdir(cwd))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.enter_context(_fresh(["run.py", *arguments]))
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(
        ["run.py", *arguments], status, out.getvalue(), err.getvalue()
    )


@contextmanager
def _fresh(argv: list[str]) -> Iterator[None]:
    """What a new process would find, and afterwards what was there before."""
    environment, arguments = dict(os.environ), sys.argv
    handlers, level = logging.root.handlers[:], logging.root.level
    sys.argv = argv
    Launch.directory = Launch.sweep = Launch.config = None
    Launch.detached = False
    PLANS.__init__()
    GlobalHydra.instance().clear()
    widths = [each.width for each in (console.console, console.error_console)]
    console.begin_job("")
    console.console.width = console.error_console.width = COLUMNS
    try:
        yield
    finally:
        console.console.width, console.error_console.width = widths
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        logging.root.handlers[:], logging.root.level = handlers, level
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
