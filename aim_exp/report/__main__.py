"""`python -m aim_exp.report DIR...`: tables, figures and a page from any directories of runs."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from aim_exp.console import console, error_console, print_error, print_warning
from aim_exp.errors import AimError
from aim_exp.report import bundle, write
from aim_exp.report.added import with_added
from aim_exp.report.baselines import one_model, parse_names
from aim_exp.report.differences import differences
from aim_exp.report.load import load
from aim_exp.report.methods import methods_paragraph
from aim_exp.report.paper import AS_IT_IS, read_paper
from aim_exp.report.published import other_populations, paper_table, published_table
from aim_exp.report.replicates import Claim
from aim_exp.report.rows import Report, make_report
from aim_exp.report.tables.terminal import print_whole_table
from aim_exp.report.terminal import print_differences, print_items, print_sweep
from aim_exp.store.study_lock import read_lock

DESCRIPTION = """\
Make the report of some runs again: results.csv, scores.csv, differences.csv,
report.md, report.html and figures/, and print their table. DIR is a run, a
sweep, or any folder of them; several are joined. The report of one DIR is
written into it, that of several into joined-ID beside the first: the reports
of each stay as they are.

Every run is compared on the same benchmark items with its plain merge and with
base, or with what --against names: the difference, its 95 % interval, p, and p
adjusted for the number of comparisons (Holm). "above" and "below" are claims
that hold, by the adjusted p and by an interval that leaves out 0; "noise" is
none. With --against or --by the tables are printed and the report that is
there stays as it is; --out DIR writes another one.
"""
EPILOG = """\
examples:
  Make a sweep's report again, against its plain merges if it has any, and base
    python -m aim_exp.report outputs/sweeps/DATE_ID

  Join sweeps; one group of rows per method
    python -m aim_exp.report SWEEP_A SWEEP_B --by method --out joined

  Is it the saliency? AIM against its control, everything else the same
    python -m aim_exp.report SWEEP --against scaling=uniform

  Is one better than the others? A method, an expert, a run's number or label
    python -m aim_exp.report SWEEP --against method=ties --by omega
    python -m aim_exp.report SWEEP --against "ties omega=0.2"

  Models that another program scored on the same items
    python -m aim_exp.report SWEEP --add scores.jsonl --out with_theirs

  What changed, item by item? Two models by name, job number or label
    python -m aim_exp.report SWEEP --items base math --benchmark mmlu --changed

  Scores against any setting that was swept
    python -m aim_exp.report SWEEP --x calibration.n_samples

  To show others: a folder for GitHub Pages or any other static host
    python -m aim_exp.report SWEEP --bundle site

  For a paper: names and widths; the appendix; scores beside published ones
    python -m aim_exp.report SWEEP --labels paper.yaml --out paper
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
    if not options.directories and not options.paper:
        parser.error("which directories of runs? (or --paper)")
    if (options.benchmark or options.changed) and not options.items:
        parser.error("--benchmark and --changed: go with --items A B")
    if options.add and options.methods_paragraph:
        parser.error("--add: what was scored elsewhere is not in --methods-paragraph")
    if options.latex and not options.methods_paragraph:
        parser.error("--latex: goes with --methods-paragraph")
    try:
        if options.paper:
            print_whole_table(console, paper_table())
        else:
            _answer(options)
    except AimError as error:
        print_error(error_console, str(error))
        return 1
    return 0


def _answer(options: argparse.Namespace) -> None:
    runs = load(*options.directories)
    if not runs.jobs:
        where = ", ".join(map(str, options.directories))
        raise AimError(f"{where}: no readable result.json in or below it")
    report = make_report(with_added(runs, options.add) if options.add else runs)
    if options.published:
        print_whole_table(console, published_table(report))
        if others := ", ".join(other_populations(report)):
            print_warning(console, f"the paper's population is llama2_13b; these runs use {others}")
    elif options.items:
        before, after = (one_model(report, name, "--items") for name in options.items)
        benchmark = options.benchmark or next(iter(report.benchmarks), "")
        print_items(console, before, after, benchmark, changed=options.changed)
    elif options.methods_paragraph:
        paragraph = methods_paragraph(report, latex=options.latex)
        console.print(Text(paragraph), soft_wrap=True)
    else:
        _compare(report, options)


def _compare(report: Report, options: argparse.Namespace) -> None:
    """A question of its own is answered here, and not written over the report that is there."""
    claim = _claim(options)
    compared = differences(report, options.against, options.by)
    out = options.bundle or options.out or _place(options.directories)
    if options.bundle or options.out or not (options.against or options.by):
        (x,) = parse_names(report, "--x", [options.x])
        paper = read_paper(options.labels) if options.labels else AS_IT_IS
        axes = tuple(options.axes) if options.axes else None
        make = bundle if options.bundle else write
        make(report, out, compared, axes=axes, x=x, paper=paper, claim=claim)
    print_sweep(console, report, out, compared)
    if compared:
        print_differences(console, compared[0], report, claim)


def _claim(options: argparse.Namespace) -> Claim:
    if options.margin is not None and not options.margin > 0:
        raise AimError(f"--margin {options.margin:g}: must be above 0, in points")
    return Claim(
        margin=None if options.margin is None else options.margin / 100,
        study=read_lock(options.study) if options.study else None,
    )


def _place(directories: Sequence[Path]) -> Path:
    """Where the report goes: into the directory; of several, into one of their own beside them.

    The same directories, in any order, have the same place.
    """
    every = sorted({str(directory.resolve()) for directory in directories})
    if len(every) == 1:
        return directories[0]
    digest = hashlib.sha256("\n".join(every).encode()).hexdigest()[:8]
    return directories[0].resolve().parent / f"joined-{digest}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.report",
        usage="python -m aim_exp.report DIR... [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directories", metavar="DIR", nargs="*", type=Path, help="a run, a sweep, a folder of them")
    add("--out", metavar="DIR", type=Path, help="where to write (default: as said above)")
    add("--bundle", metavar="DIR", type=Path, help="where to write it for any static host")
    add(
        "--add", metavar="FILE", type=Path,
        help="models scored elsewhere, beside the first run's: JSON lines of model, benchmark, "
        "item (its number, or 'TASK NUMBER') and score, for every item of every benchmark",
    )  # fmt: skip
    add("--axes", metavar=("X", "Y"), nargs=2, help="of the front (default: the sharpest conflict)")
    add("--x", metavar="SETTING", default="omega", help="what scores are shown against (omega)")
    add(
        "--labels", metavar="FILE", type=Path,
        help="YAML that says how tables/ and figures/ are to look: names {ties: TIES}, columns, "
        "changes (points, percent), margin (deviation, stderr, none), marks, width, font",
    )  # fmt: skip
    add = parser.add_argument_group("comparing").add_argument
    add(
        "--against", metavar="SETTING=VALUE | NAME", action="append", default=[],
        help="the twin that each run is compared with (default: omega=null, where a sweep has "
        "it); give it again for a twin that differs in several settings. Or one model for all: "
        "base, an expert, a reference, or a run by its job number or its label ('ties omega=0.2')",
    )  # fmt: skip
    add("--by", metavar="SETTING", action="append", default=[], help="groups the rows; repeatable")
    add("--margin", metavar="POINTS", type=float, help="what does not matter, fixed beforehand")
    add("--study", metavar="STUDY.lock", type=Path, help="what was locked; all else is exploratory")
    add = parser.add_argument_group("items (printed, nothing is written)").add_argument
    add("--items", metavar=("A", "B"), nargs=2, help="what two models answered, named as above")
    add("--benchmark", metavar="NAME", help="of which items (default: the first)")
    add("--changed", action="store_true", help="those alone whose scores differ")
    papers = parser.add_argument_group("for a paper (printed, nothing is written)")
    add = papers.add_mutually_exclusive_group().add_argument
    add(
        "--methods-paragraph",
        action="store_true",
        help="the appendix: settings, models, hours, ...",
    )
    add("--published", action="store_true", help="runs of the paper's suite beside its scores")
    add("--paper", action="store_true", help="the paper's own tables")
    papers.add_argument("--latex", action="store_true", help="of the methods paragraph, for LaTeX")
    return parser


if __name__ == "__main__":
    sys.exit(main())
