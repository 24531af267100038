"""`python -m aim_exp.store du|gc|verify|export|import`: looks after a cache of results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from aim_exp.console import console, error_console, print_error, print_whole, size_text
from aim_exp.errors import AimError
from aim_exp.store import exports
from aim_exp.store.housekeeping import LEFT_OVER, damages, delete, entries, needed, unneeded
from aim_exp.store.run_record import RunRecord, find_records

SECONDS_PER_DAY = 24 * 60 * 60
FINE, DAMAGED, TROUBLE = 0, 1, 2
"""Exit codes."""
EPILOG = """\
du      bytes by stage; with RUNS by folder of RUNS too: what its runs rest on, `alone` of it what
        those of no other one do
gc      what no run in or below RUNS rests on, finished or not, what was set aside as damaged, and
        what was begun and never finished; with --older only what was last written that many days
        ago, whoever rests on it if there are no RUNS. --yes deletes it, but nothing that a
        process uses. Name every folder whose runs you keep
verify  reads all there is, and prints a line for whatever is not as it was written; the next run
        that needs it makes it again
export  what base, experts and references answered and scored in RUNS, or with --all everything that
        RUNS rest on, to the folder --to, which is a cache too; export.json in it says which runs,
        versions and machines it comes from
import  what an export holds, into the cache; what is there already stays, what is damaged stays out
exit code: 0; 1 if something is damaged; 2 trouble
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command is not import_ and not options.cache_dir.is_dir():
            raise AimError(f"--cache-dir={options.cache_dir}: is no folder")
        return options.command(options)
    except AimError as error:
        print_error(error_console, str(error))
        return TROUBLE


def du(options: argparse.Namespace) -> int:
    """By stage and by folder of runs."""
    everything = entries(options.cache_dir)
    sizes = {entry.name: entry.size for entry in everything}
    stages = _table("stage", "entries", "size")
    for stage in dict.fromkeys(entry.stage for entry in everything):
        _row(stages, stage, [entry.name for entry in everything if entry.stage == stage], sizes)
    stages.add_section()
    _row(stages, "total", list(sizes), sizes)
    print_whole(console, stages)
    if options.runs:
        rests = {runs: needed(_records([runs])) & sizes.keys() for runs in options.runs}
        table = _table("runs", "entries", "size", "alone")
        for runs, names in rests.items():
            others = set().union(*(rests[other] for other in rests if other != runs))
            alone = size_text(sum(sizes[name] for name in names - others))
            _row(table, str(runs), names, sizes, alone)
        print_whole(console, table)
    return FINE


def gc(options: argparse.Namespace) -> int:
    """What no run that is kept rests on, or what is old."""
    root = options.cache_dir
    records = _records(options.runs)
    if not options.runs and options.older is None:
        raise AimError("gc: name the RUNS that you keep, or what is old by --older DAYS")
    if options.runs and not records:
        raise AimError(f"{' '.join(map(str, options.runs))}: no run is there, so all would go")
    superfluous = [
        entry
        for entry in unneeded(root, needed(records))
        if options.older is None or entry.age > options.older * SECONDS_PER_DAY
    ]
    for entry in superfluous:
        if not options.yes:
            outcome = size_text(entry.size)
        else:
            outcome = "deleted" if delete(root, entry) else "in use"
        console.print(f"{outcome:>10}  {entry.name}", soft_wrap=True, markup=False)
    if not options.yes:
        words = f"in {len(superfluous)} entries"
        words += f" that none of {len(records)} runs rests on" if records else ""
        words += f", not written for {options.older:g} days" if options.older is not None else ""
        total = size_text(sum(entry.size for entry in superfluous))
        console.print(f"{total:>10}  {words}; --yes deletes them", soft_wrap=True)
    return FINE


def verify(options: argparse.Namespace) -> int:
    """Read all, and say what is damaged."""
    checked = [each for each in entries(options.cache_dir) if each.stage not in LEFT_OVER]
    problems = [problem for entry in checked for problem in damages(entry)]
    for problem in problems:
        console.print(problem, soft_wrap=True, markup=False)
    console.print(f"{len(checked)} entries, {len(problems)} damages")
    return DAMAGED if problems else FINE


def export(options: argparse.Namespace) -> int:
    """What members answered in runs, to a folder for others."""
    names_of = (lambda record: needed([record])) if options.all else exports.of_members
    records = _records(options.runs)
    return _tell(exports.export(options.cache_dir, records, names_of, options.to), options.to)


def import_(options: argparse.Namespace) -> int:
    """What an export holds."""
    return _tell(exports.import_(options.source, options.cache_dir), options.cache_dir)


def _tell(done: exports.Transfer, into: Path) -> int:
    for problem in done.problems:
        console.print(f"{problem}; left out", soft_wrap=True, markup=False)
    counts = f"{len(done.new)} entries new, {len(done.there)} there already"
    missing = f", {len(done.missing)} of the runs' not in the cache" if done.missing else ""
    console.print(f"{into}: {counts}{missing}", soft_wrap=True, markup=False)
    return DAMAGED if done.problems else FINE


def _records(folders: Sequence[Path]) -> list[RunRecord]:
    """AimError where one cannot be read: nobody knows what it rests on."""
    records, problems = find_records(*folders)
    if problems:
        raise AimError("\n".join(problems))
    return [record for _, record in records]


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="dim")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    return table


def _row(table: Table, name: str, names: Iterable[str], sizes: dict[str, int], *more: str) -> None:
    names = list(names)
    table.add_row(name, f"{len(names):,}", size_text(sum(sizes[each] for each in names)), *more)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.store",
        description="What the cache of results holds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="du|gc|verify|export|import")
    for command, runs in ((du, "*"), (gc, "*"), (verify, None), (export, "+"), (import_, None)):
        each = commands.add_parser(command.__name__.rstrip("_"), help=command.__doc__)
        each.set_defaults(command=command)
        if runs:
            each.add_argument("runs", metavar="RUNS", type=Path, nargs=runs)
        if command is gc:
            each.add_argument("--older", metavar="DAYS", type=float, help="only what is old")
            each.add_argument("--yes", action="store_true", help="delete, after all is seen")
        if command is export:
            each.add_argument("--to", metavar="EXPORT", type=Path, required=True)
            each.add_argument("--all", action="store_true", help="all that the runs rest on")
        if command is import_:
            each.add_argument("source", metavar="EXPORT", type=Path)
        each.add_argument(
            "--cache-dir",
            metavar="DIR",
            type=Path,
            default=Path("outputs/cache"),
            help="default: outputs/cache",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
