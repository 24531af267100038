"""`report.md`: what was run, what came out, how far to trust it and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from aim_exp.report.board import AVERAGE, NOTHING, Board, Line, job_board, population_board
from aim_exp.report.figures import CAPTIONS, FOLDER
from aim_exp.report.files import write_atomically
from aim_exp.report.halves import choices
from aim_exp.report.models import Estimate
from aim_exp.report.notes import notes
from aim_exp.report.plots import Change, changes
from aim_exp.report.results import Job, Results
from aim_exp.report.summary import GAIN_MEANS, counts, error_text, gain_text, percent


def write_page(results: Results, path: Path) -> Path:
    """Write the page; the figures that lie in `figures/` beside it are shown in it."""
    sections = (
        _what_was_run(results),
        _leaderboard(results),
        _population(results),
        _changes(results),
        _choices(results),
        _figures(path.parent),
        _failures(results),
        _bullets("How far to trust it", notes(results)),
        _commands(results),
        _origin(results),
    )
    text = "\n\n".join(section for section in sections if section) + "\n"
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _what_was_run(results: Results) -> str:
    created = sorted(job.record.created for job in results.jobs if job.record.created)
    when = f", {' to '.join(dict.fromkeys((created[0], created[-1])))}" if created else ""
    title = " vs ".join(dict.fromkeys(job.record.method or "?" for job in results.jobs))
    lines = [f"# {title}", f"{counts(results)}{when}.", ""]
    lines += [f"- {name}: `{value}`" for name, value in _shared_settings(results).items()]
    return "\n".join([lines[0], "", *lines[1:]])


def _shared_settings(results: Results) -> dict[str, str]:
    """What all jobs that ran have in common; what differs stands in the tables.

    A method's own fields go by its name: several methods have a density.
    """
    ran = [job for job in results.jobs if not job.failed] or results.jobs
    shared: dict[str, str] = {}
    for job in ran:
        for name, value in job.settings.items():
            if value != "null" and name not in results.varying:
                group, dot, field = name.partition(".")
                own = group == "method" and dot
                shared[f"{job.record.method}.{field}" if own else name] = value
    return dict(sorted(shared.items(), key=lambda item: "." in item[0]))


def _leaderboard(results: Results) -> str:
    def rank(job: Job) -> float:
        return job.merged.average.value if job.merged and job.merged.average else 0.0

    jobs = sorted(results.scored, key=rank, reverse=True)
    if not jobs:
        return "## Leaderboard\n\nNo merged model was scored."
    return (
        "## Leaderboard\n\nBest average first; percent ± standard error; **bold**: best of the "
        "column; ★: no other model, merged or not, is at least as good on every benchmark and "
        f"better on one. Gain: {GAIN_MEANS} (the d-th root of the volume).\n\n"
        + _board(job_board(results, jobs, with_population=False))
    )


def _population(results: Results) -> str:
    if not results.populations:
        return ""
    return "## Population\n\nWhat was merged, and its base.\n\n" + _board(population_board(results))


def _changes(results: Results) -> str:
    found = changes(results)
    if not found:
        return ""
    headings = ["job", "with AIM", "average", "gain", *results.benchmarks]
    rows = [_change_row(results, change) for change in found]
    return (
        "## Against the plain merge\n\nEach run minus its twin with `omega=null`, in points. The "
        "standard error takes the two as independent; they answer the same items, so it is "
        "rather too wide.\n\n" + _table(headings, rows, text_columns=2)
    )


def _change_row(results: Results, change: Change) -> list[str]:
    def points(difference: Estimate | None) -> str:
        if difference is None:
            return NOTHING
        return f"{100 * difference.value:+.1f} {error_text(difference)}".rstrip()

    gain = NOTHING if change.gain is None else f"{change.gain:+.3f}"
    scores = [points(change.scores.get(name)) for name in results.benchmarks]
    name = results.label(change.job)
    return [change.job.folder, name, points(change.average), gain, *scores]


def _choices(results: Results) -> str:
    found = choices(results)
    if not found:
        return ""
    headings = ["candidates", "best on all items", "average", "chosen on half the items"]
    headings += ["there", "on the other half"]
    rows = [
        [
            f"{choice.candidates} of {choice.chosen.record.method}",
            f"{results.label(choice.best_on_all)} †",
            f"{100 * choice.average_on_all:.1f}",
            results.label(choice.chosen),
            f"{100 * choice.average_when_chosen:.1f}",
            f"**{100 * choice.average_reported:.1f}**",
        ]
        for choice in found
    ]
    return (
        "## Omega and lambda, chosen honestly\n\n† chosen on its own test items, so partly luck. "
        "Beside it, every second item of each benchmark chooses and the others report: the number "
        "in bold is the one to quote for a tuned omega or lambda.\n\n"
        + _table(headings, rows, text_columns=2)
    )


def _figures(directory: Path) -> str:
    drawn = [name for name in CAPTIONS if (directory / FOLDER / f"{name}.png").exists()]
    shown = [
        f"![{name}]({FOLDER}/{name}.png)\n\n{CAPTIONS[name]} ([PDF]({FOLDER}/{name}.pdf))"
        for name in drawn
    ]
    return "\n\n".join(["## Figures", *shown]) if shown else ""


def _failures(results: Results) -> str:
    lines = (
        f"`{job.folder}` ({results.label(job)}): {' '.join((job.record.error or '?').split())}"
        for job in results.failed
    )
    return _bullets("Failed", lines)


def _commands(results: Results) -> str:
    given = [job for job in results.jobs if job.record.command]
    if not given:
        return ""
    commands = "\n".join(f"# {job.folder}\n{job.record.command}" for job in given)
    return f"## How to repeat each\n\n```bash\n{commands}\n```"


def _origin(results: Results) -> str:
    """Versions and machines; several values where jobs differ."""
    seen: dict[str, dict[str, None]] = {}
    for job in results.jobs:
        record = job.record
        about = {**record.provenance, "device": record.device, **record.versions}
        for name, value in about.items():
            if value not in (None, ""):
                seen.setdefault(name, {})[str(value)] = None
    seconds = sum(job.seconds or 0.0 for job in results.jobs)
    lines = [f"{name}: {', '.join(values)}" for name, values in seen.items()]
    lines.append(f"{seconds:.0f} s in all jobs together")
    lines.append("`results.csv`: the numbers; `result.json` in each job's folder: everything")
    return _bullets("Where this is from", lines)


def _board(board: Board) -> str:
    gain = ["gain"] if board.with_gain else []
    headings = [*board.lead, "", "average", *gain, *board.benchmarks]
    rows = [_board_row(board, line) for line in board.lines]
    return _table(headings, rows, text_columns=len(board.lead) + 1)


def _board_row(board: Board, line: Line) -> list[str]:
    def cell(column: str) -> str:
        score = line.score(column)
        if score is None:
            return NOTHING
        value, bold = percent(score), "**" if board.is_best(line, column) else ""
        return f"{bold}{value}{bold} {error_text(score)}".rstrip()

    gain = [NOTHING if line.gain is None else gain_text(line.gain)] if board.with_gain else []
    star = "★" if line.on_front else ""
    return [*line.lead, star, cell(AVERAGE), *gain, *map(cell, board.benchmarks)]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int) -> str:
    """A Markdown table; the first columns hold text, the others numbers, to the right."""
    rules = ["---"] * text_columns + ["---:"] * (len(headings) - text_columns)
    lines = [headings, rules, *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )


def _bullets(title: str, lines: Iterable[str]) -> str:
    items = [f"- {line}" for line in lines]
    return "\n".join([f"## {title}", "", *items]) if items else ""
