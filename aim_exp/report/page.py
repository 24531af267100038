"""`report.md`: what was run, what came out, how far to trust it and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from aim_exp.report.board import AVERAGE, NOTHING, Board, Line, job_board, population_board
from aim_exp.report.compare.comparison import Comparison, Difference, Row, Verdict
from aim_exp.report.compare.halves import choices
from aim_exp.report.figures import FOLDER, captions
from aim_exp.report.files import write_atomically
from aim_exp.report.markdown import markdown_table
from aim_exp.report.notes import notes
from aim_exp.report.relaxation import saliency_is_gone
from aim_exp.report.repeats import seeds_repeat
from aim_exp.report.results import Results
from aim_exp.report.settings import as_words
from aim_exp.report.summary import (
    GAIN_MEANS,
    counts,
    error_text,
    gain_text,
    origin,
    p_text,
    percent,
    population_words,
    ranked,
    shared_settings,
    title,
    when,
)
from aim_exp.report.table_formats import score_files
from aim_exp.statistics import LEVEL


def write_page(results: Results, path: Path, comparison: Comparison | None) -> Path:
    """Write the page; the figures that lie in `figures/` beside it are shown in it."""
    sections = (
        _what_was_run(results),
        _leaderboard(results),
        _population(results),
        _comparison(results, comparison),
        _choices(results),
        _figures(results, path.parent),
        _tables(results, path.parent),
        _failures(results),
        _bullets("How far to trust it", notes(results)),
        _commands(results),
        _origin(results),
    )
    text = "\n\n".join(section for section in sections if section) + "\n"
    return write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _what_was_run(results: Results) -> str:
    lines = [f"# {title(results)}", "", f"{', '.join([counts(results), *when(results)])}.", ""]
    lines += [f"- {name}: `{value}`" for name, value in shared_settings(results).items()]
    lines += [f"- {name}: jobs of `{directory}`" for name, directory in results.sweeps.items()]
    lines += [f"- {name}: {words}" for name, words in population_words(results).items()]
    return "\n".join(lines)


def _leaderboard(results: Results) -> str:
    jobs = ranked(results)
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


def _comparison(results: Results, comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    quantities = ("average", "gain", *results.benchmarks)
    headings = ["job", "run", *quantities]
    rows = [_comparison_row(comparison, row, results.benchmarks) for row in comparison.rows]
    sentences = [comparison.sentence(row) for row in comparison.rows] + comparison.omissions()
    return "\n\n".join(
        (
            f"## Against {comparison.title}",
            f"Each run minus its twin with `{as_words(comparison.against)}`, on the same items: "
            f"the difference in points, its {100 * LEVEL:.0f} % interval, and p adjusted by Holm's "
            "method (over the averages, over the gains, and over all cells of the benchmarks). "
            "**Bold**: holds, by that p and by an interval that leaves out 0. Answers that are "
            "right or wrong: McNemar's exact test, Bonett and Price's interval; else a "
            "randomisation test that swaps the two models' answers, and the interval of a paired "
            "bootstrap over the items of each benchmark.",
            markdown_table(headings, rows, text_columns=2),
            "\n".join(f"- {sentence}" for sentence in sentences),
        )
    )


def _comparison_row(comparison: Comparison, row: Row, benchmarks: Sequence[str]) -> list[str]:
    scores = [_difference(row.scores.get(name)) for name in benchmarks]
    name = comparison.label(row)
    return [row.job.name, name, _difference(row.average), _difference(row.gain), *scores]


def _difference(difference: Difference | None) -> str:
    """`+1.8 (-0.9 to +4.6; p 0.360)`, the number in bold where it holds."""
    if difference is None:
        return NOTHING
    held = difference.verdict in (Verdict.ABOVE, Verdict.BELOW)
    number = difference.number(difference.value)
    text = f"**{number}**" if held else number
    if difference.test is None:
        return text
    return f"{text} ({difference.interval}; p {p_text(difference.adjusted_p)})"


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
        + markdown_table(headings, rows, text_columns=2)
    )


def _figures(results: Results, directory: Path) -> str:
    shown = [
        f"![{name}]({FOLDER}/{name}.png)\n\n{caption} ([PDF]({FOLDER}/{name}.pdf))"
        for name, caption in captions(results).items()
        if (directory / FOLDER / f"{name}.png").exists()
    ]
    if saliency_is_gone(results):
        shown.append("No figure of base's saliency: it is gone from the cache.")
    return "\n\n".join(["## Figures", *shown]) if shown else ""


def _tables(results: Results, directory: Path) -> str:
    files = score_files(directory)
    links = ", ".join(f"[{file.name}]({file.relative_to(directory)})" for file in files)
    if not links:
        return ""
    both = results.has_plain and results.has_relaxed
    pairs = " without and with AIM and the change in percent" if both else ""
    seeds = ", means over seeds" if seeds_repeat(results) else ""
    return f"## Tables for papers\n\nEvery merge{pairs}{seeds}: {links}"


def _failures(results: Results) -> str:
    lines = (
        f"`{job.name}` ({results.label(job)}): {' '.join((job.record.error or '?').split())}"
        for job in results.failed
    )
    return _bullets("Failed", lines)


def _commands(results: Results) -> str:
    given = [job for job in results.jobs if job.record.command]
    if not given:
        return ""
    commands = "\n".join(f"# {job.name}\n{job.record.command}" for job in given)
    return f"## How to repeat each\n\n```bash\n{commands}\n```"


def _origin(results: Results) -> str:
    lines = [f"{name}: {', '.join(values)}" for name, values in origin(results).items()]
    lines.append("`results.csv`: the numbers; `result.json` in each job's folder: everything")
    return _bullets("Where this is from", lines)


def _board(board: Board) -> str:
    gain = ["gain"] if board.with_gain else []
    headings = [*board.lead, "", "average", *gain, *board.benchmarks]
    rows = [_board_row(board, line) for line in board.lines]
    return markdown_table(headings, rows, text_columns=len(board.lead) + 1)


def _board_row(board: Board, line: Line) -> list[str]:
    def cell(column: str) -> str:
        score = line.score(column)
        if score is None:
            return NOTHING
        value, bold = percent(score), "**" if board.is_best(line, column) else ""
        return f"{bold}{value}{bold} {error_text(score)}".rstrip()

    gain = [_gain(board, line)] if board.with_gain else []
    star = "★" if line.on_front else ""
    return [*line.lead, star, cell(AVERAGE), *gain, *map(cell, board.benchmarks)]


def _gain(board: Board, line: Line) -> str:
    if line.gain is None:
        return NOTHING
    bold = "**" if board.has_best_gain(line) else ""
    return f"{bold}{gain_text(line.gain)}{bold}"


def _bullets(title: str, lines: Iterable[str]) -> str:
    items = [f"- {line}" for line in lines]
    return "\n".join([f"## {title}", "", *items]) if items else ""
