"""The command: `python -m aim_exp.study lock | run | report | figure`."""

from __future__ import annotations

import argparse
from pathlib import Path

import aim_exp.study
from aim_exp.console import error_console, print_error
from aim_exp.errors import AimError


def main(arguments: list[str] | None = None) -> int:
    """0 when it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.study",
        description=aim_exp.study.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lock", help="write STUDY.lock").add_argument("study", type=Path)
    run = commands.add_parser("run", help="run replicates, and keep their items")
    run.add_argument("lock", type=Path)
    run.add_argument("replicates", type=int, nargs="+")
    report = commands.add_parser("report", help="every number of a study, as Markdown")
    report.add_argument("lock", type=Path)
    figure = commands.add_parser("figure", help="its differences, as PNG and PDF beside the lock")
    figure.add_argument("lock", type=Path)
    given = parser.parse_args(arguments)
    try:
        _carry_out(given)
    except AimError as error:
        print_error(error_console, str(error))
        return 1
    return 0


def _carry_out(given: argparse.Namespace) -> None:
    if given.command == "lock":
        from aim_exp.study.design import lock

        print(f"{lock(given.study)}: locked; commit it before the first test replicate")
    elif given.command == "run":
        from aim_exp.study.replicates import run_replicate

        for number in given.replicates:
            print(f"{run_replicate(given.lock, number)}: kept; commit it")
    elif given.command == "figure":
        from aim_exp.study.figure import save_figure

        print(save_figure(given.lock))
    else:
        from aim_exp.study.findings import findings

        print(findings(given.lock))


if __name__ == "__main__":
    raise SystemExit(main())
