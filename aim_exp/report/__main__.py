"""`python -m aim_exp.report DIR...`: tables, figures and a page from any directories of runs."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from aim_exp.console import console, error_console, print_error
from aim_exp.errors import AimError
from aim_exp.report import rebuild
from aim_exp.report.compare.baselines import parse_against, parse_names
from aim_exp.report.compare.comparison import Comparison, compare_runs
from aim_exp.report.compare.terminal import print_comparison
from aim_exp.report.methods_paragraph import methods_paragraph
from aim_exp.report.paper import print_paper, print_published
from aim_exp.report.results import Results, collect
from aim_exp.report.terminal import print_sweep

DESCRIPTION = """\
Make the report of some runs again: results.csv, report.md, report.html and
figures/, and print their table. DIR is a run, a sweep, or any folder of them;
several are joined, and a run that stands in several, with the same results, is
listed once. The report of one DIR is written into it, that of several into
joined-ID beside the first: the reports of each stay as they are.

Every run is compared on the same benchmark items with its twin, the run that
differs in --against only, or with one model that --against names: the
difference, its 95 % interval, p, and p adjusted for the number of comparisons
(Holm). "above" and "below" are claims that hold, by the adjusted p and by an
interval that leaves out 0; "noise" is none.
"""
EPILOG = """\
examples:
  Make a sweep's report again, against its plain merges if it has any
    python -m aim_exp.report outputs/sweeps/DATE_ID

  Join sweeps; one group of rows per method
    python -m aim_exp.report SWEEP_A SWEEP_B --by method --out joined

  Is it the saliency? AIM against its control, everything else the same
    python -m aim_exp.report SWEEP --against scaling=uniform

  Which method? Every other one against TIES
    python -m aim_exp.report SWEEP --against method=ties --by omega

  Better than what was merged? Every run against base, an expert or a reference
    python -m aim_exp.report SWEEP --against base

  Is one run better than the others? By its job number, or by its label
    python -m aim_exp.report SWEEP --against "ties omega=0.2"

  For a paper: the appendix, and our scores beside the published ones
    python -m aim_exp.report SWEEP --methods-paragraph --latex
    python -m aim_exp.report SWEEP --published

Settings are those in the table's headings: method, omega, density, scaling,
seed, experts, population, calibration.n_samples, ... An unknown one is
answered with what there is.
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
    if options.latex and not options.methods_paragraph:
        parser.error("--latex: goes with --methods-paragraph")
    try:
        results = _found(options.directories)
        if options.published:
            print_published(console, results)
        elif options.methods_paragraph:
            paragraph = methods_paragraph(results, latex=options.latex)
            console.print(Text(paragraph), soft_wrap=True)
        else:
            _report(results, options)
    except AimError as error:
        print_error(error_console, str(error))
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


def _report(results: Results, options: argparse.Namespace) -> None:
    comparison = _comparison(results, options)
    out, axes = options.out or _place(options.directories), options.axes
    rebuild(results, out, axes=(axes[0], axes[1]) if axes else None, comparison=comparison)
    print_sweep(console, results, out, comparison)
    if comparison:
        print_comparison(console, comparison)


def _place(directories: Sequence[Path]) -> Path:
    """Where the report goes: into the directory; of several, into one of their own beside them.

    The same directories, in any order, have the same place.
    """
    every = sorted({str(directory.resolve()) for directory in directories})
    if len(every) == 1:
        return directories[0]
    digest = hashlib.sha256("\n".join(every).encode()).hexdigest()[:8]
    return directories[0].resolve().parent / f"joined-{digest}"


def _comparison(results: Results, options: argparse.Namespace) -> Comparison | None:
    """What was asked for; without being asked, the plain merges, if there are any."""
    against = parse_against(results, options.against)
    comparison = compare_runs(results, against, parse_names(results, "--by", options.by))
    if comparison is None and (options.against or options.by):
        raise AimError(
            f"--against {against.sought}: no scored run has one; runs that differ in several "
            "settings need all of them, each with --against, or the name of a run"
        )
    return comparison


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.report",
        usage="python -m aim_exp.report DIR... [options]",
        description=DESCRIPTION,
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
        "--out",
        metavar="DIR",
        type=Path,
        help="where to write (default: into DIR; of several, joined-ID beside the first)",
    )
    parser.add_argument(
        "--axes",
        metavar=("X", "Y"),
        nargs=2,
        help="the two benchmarks of the Pareto front (default: those in sharpest conflict)",
    )
    comparing = parser.add_argument_group("comparing")
    comparing.add_argument(
        "--against",
        metavar="SETTING=VALUE | NAME",
        action="append",
        default=[],
        help="the twin that each run is compared with (default: omega=null, where a sweep has "
        "it); give it again for a twin that differs in several settings. Or one model for all: "
        "base, an expert, a reference, or a run by its job number or its label ('ties omega=0.2')",
    )
    comparing.add_argument(
        "--by",
        metavar="SETTING",
        action="append",
        default=[],
        help="group the rows; may be given again",
    )
    papers = parser.add_argument_group("for a paper (printed, nothing is written)")
    one_of = papers.add_mutually_exclusive_group()
    one_of.add_argument(
        "--methods-paragraph",
        action="store_true",
        help="the appendix: settings, models, benchmarks, versions, hardware, hours",
    )
    one_of.add_argument(
        "--published", action="store_true", help="put runs of the paper's suite beside its scores"
    )
    one_of.add_argument("--paper", action="store_true", help="print the paper's own tables")
    papers.add_argument(
        "--latex", action="store_true", help="the methods paragraph, safe to paste into LaTeX"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
