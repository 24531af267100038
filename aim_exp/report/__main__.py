"""`python -m aim_exp.report DIR...`: tables, figures and a page from any directories of runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aim_exp.console import console
from aim_exp.errors import AimError
from aim_exp.report import rebuild
from aim_exp.report.paper import print_paper, print_published
from aim_exp.report.results import Results, collect
from aim_exp.report.terminal import print_sweep

EPILOG = """\
examples:
  python -m aim_exp.report outputs/sweeps/DATE_ID
  python -m aim_exp.report SWEEP_A SWEEP_B --out compared --axes mmlu gsm8k
  python -m aim_exp.report SWEEP --published
  python -m aim_exp.report --paper
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.paper:
        print_paper(console)
        return 0
    if not options.directories:
        parser.error("which directories of runs? (or --paper)")
    try:
        results = _found(options.directories)
        if options.published:
            print_published(console, results)
        else:
            _report(results, options.out or options.directories[0], options.axes)
    except AimError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _found(directories: Sequence[Path]) -> Results:
    missing = [directory for directory in directories if not directory.is_dir()]
    if missing:
        raise AimError(f"{missing[0]}: no such directory")
    results = collect(*directories)
    if not results.jobs:
        raise AimError(
            f"{', '.join(map(str, directories))}: no readable result.json in or below it"
        )
    return results


def _report(results: Results, out: Path, axes: Sequence[str] | None) -> None:
    rebuild(results, out, axes=(axes[0], axes[1]) if axes else None)
    print_sweep(console, results, out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.report",
        description="Rebuild results.csv, report.md and figures/ from the runs found in or below "
        "some directories, and print their table.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directories",
        metavar="DIR",
        nargs="*",
        type=Path,
        help="a run, a sweep, or any folder of them",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where to write (default: the first DIR)"
    )
    parser.add_argument(
        "--axes",
        metavar=("X", "Y"),
        nargs=2,
        help="the two benchmarks of the Pareto front (default: those in sharpest conflict)",
    )
    parser.add_argument(
        "--published", action="store_true", help="put runs of the paper's suite beside its scores"
    )
    parser.add_argument("--paper", action="store_true", help="print the paper's own tables")
    return parser


if __name__ == "__main__":
    sys.exit(main())
