"""`report.md`: what was run, what came out, how far to trust it and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from aim_exp.report.board import NOTHING, Board, Line, member_board, study_board
from aim_exp.report.compare.comparison import Comparison, Difference, Row, Verdict
from aim_exp.report.compare.halves import choices
from aim_exp.report.figures import FOLDER, captions
from aim_exp.report.files import write_atomically
from aim_exp.report.markdown import escape_markdown, markdown_table
from aim_exp.report.notes import notes
from aim_exp.report.relaxation import saliency_is_gone
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import Job, Results
from aim_exp.report.studies import seeds_repeat, studies
from aim_exp.report.summary import (
    GAIN_MEANS,
    counts,
    margin_text,
    origin,
    p_text,
    printed,
    shared_settings,
    study_words,
    title,
    when,
)
from aim_exp.report.tables.formats import score_files
from aim_exp.statistics import LEVEL
from aim_exp.store.records import CODE_DIGITS, CODE_FOLDER, INTERRUPTED


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
    lines = [
        f"# {escape_markdown(title(results))}",
        "",
        f"{', '.join([counts(results), *when(results)])}.",
        "",
    ]
    shared = shared_settings(results).items()
    lines += [f"- {escape_markdown(name)}: `{value}`" for name, value in shared]
    lines += [f"- {name}: jobs of `{directory}`" for name, directory in results.sweeps.items()]
    lines += [f"- {name}: {escape_markdown(words)}" for name, words in study_words(results).items()]
    return "\n".join(lines)


def _leaderboard(results: Results) -> str:
    boards = [study_board(each, each.ranked) for each in studies(results) if each.merges]
    if not boards:
        return "## Leaderboard\n\nNo merged model was scored."
    units = " or ".join(dict.fromkeys(board.unit for board in boards))
    return (
        f"## Leaderboard\n\nBest average first; {units}; **bold**: best of the column; ★: no other "
        "model, merged or not, is at least as good on every benchmark and better on one. Gain: "
        f"{GAIN_MEANS} (the d-th root of the volume).\n\n" + "\n\n".join(map(_board, boards))
    )


def _population(results: Results) -> str:
    boards = [member_board(study) for study in studies(results)]
    if not boards:
        return ""
    tables = "\n\n".join(map(_board, boards))
    return f"## Population\n\nWhat was merged, and its base.\n\n{tables}"


def _comparison(results: Results, comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    quantities = ("average", "gain", *results.benchmarks)
    headings = ["job", "run", *map(escape_markdown, quantities)]
    rows = [_comparison_row(comparison, row, results.benchmarks) for row in comparison.rows]
    own = escape_markdown(comparison.against.own)
    sentences = [comparison.sentence(row) for row in comparison.rows] + comparison.omissions()
    return "\n\n".join(
        (
            f"## Against {escape_markdown(comparison.title)}",
            f"Each run minus {own}, on the same items: the difference in "
            f"points, its {100 * LEVEL:.0f} % interval, and p adjusted by Holm's method "
            f"over the {comparison.family_words}. **Bold**: holds, by that p and by an interval "
            "that leaves out 0. Answers that are right or wrong: McNemar's exact test, Bonett and "
            "Price's interval; else a randomisation test that swaps the two models' answers, and "
            "the percentile interval of a paired bootstrap over the items of each benchmark. "
            "Intervals are for each difference by itself. All of it is about these models on "
            "other items of the same kind: what another seed or population would give, it does "
            "not say.",
            markdown_table(headings, rows, text_columns=2),
            "\n".join(f"- {escape_markdown(sentence)}" for sentence in sentences),
        )
    )


def _comparison_row(comparison: Comparison, row: Row, benchmarks: Sequence[str]) -> list[str]:
    scores = [_difference(row.scores.get(name)) for name in benchmarks]
    name = escape_markdown(comparison.label(row))
    return [
        escape_markdown(row.job.name),
        name,
        _difference(row.average),
        _difference(row.gain),
        *scores,
    ]


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
            escape_markdown(f"{choice.candidates} of {choice.name}"),
            escape_markdown(f"{results.label(choice.best_on_all)} †"),
            f"{100 * choice.average_on_all:.1f}",
            escape_markdown(results.label(choice.chosen)),
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
        f"![{name}]({FOLDER}/{name}.png)\n\n{escape_markdown(caption)} ([PDF]({FOLDER}/{name}.pdf))"
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
    failed = (
        f"`{job.name}` ({results.label(job)}): {' '.join((job.record.error or '?').split())}"
        for job in results.failed
        if job.ended == "failed"
    )
    interrupted = (
        f"`{job.name}` ({results.label(job)})" for job in results.failed if job.ended == INTERRUPTED
    )
    sections = (_bullets("Failed", failed), _bullets("Interrupted", interrupted))
    return "\n\n".join(filter(None, sections))


def _commands(results: Results) -> str:
    given = [job for job in results.jobs if job.record.command]
    if not given:
        return ""
    commands = "\n".join(f"# {job.name}{_code(job)}\n{job.record.command}" for job in given)
    return f"## How to repeat each\n\n```bash\n{commands}\n```"


def _code(job: Job) -> str:
    """Which version of what is outside the package the command stands for, and where that is."""
    digests = [f"{group} {code[:CODE_DIGITS]}" for group, code in job.record.code.items()]
    return f": code of {', '.join(digests)}, kept in its {CODE_FOLDER}/" if digests else ""


def _origin(results: Results) -> str:
    lines = [f"{name}: {', '.join(values)}" for name, values in origin(results).items()]
    lines.append("`results.csv`: the numbers; `result.json` in each job's folder: everything")
    return _bullets("Where this is from", lines)


def _board(board: Board) -> str:
    """With its title above, and below a table of means how precise they are."""
    columns = (AVERAGE, *[GAIN] * board.with_gain, *board.benchmarks)
    names = ["gain" if column == GAIN else column for column in columns]
    rows = [_board_row(board, line, columns) for line in board.lines]
    headings = map(escape_markdown, (*board.lead, "", *names))
    table = markdown_table([*headings], rows, text_columns=len(board.lead) + 1)
    title = f"### {escape_markdown(board.title)}" if board.title else ""
    precision = f"{board.precision.capitalize()}." if board.repeated and board.precision else ""
    return "\n\n".join(filter(None, (title, table, precision)))


def _board_row(board: Board, line: Line, columns: Sequence[str]) -> list[str]:
    def cell(column: str) -> str:
        score = line.score(column)
        if score is None:
            return NOTHING
        value, bold = printed(column, score.value), "**" if board.is_best(line, column) else ""
        margin = "" if column == GAIN else margin_text(column, board.margin(line, column))
        return f"{bold}{value}{bold} {margin}".rstrip()

    return [*map(escape_markdown, line.lead), "★" if line.on_front else "", *map(cell, columns)]


def _bullets(title: str, lines: Iterable[str]) -> str:
    items = [f"- {escape_markdown(line)}" for line in lines]
    return "\n".join([f"## {title}", "", *items]) if items else ""
