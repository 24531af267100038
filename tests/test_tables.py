"""The one Table and its renderers; the tables for papers, seeds taken together."""

import csv
import re
from io import StringIO
from pathlib import Path
from statistics import stdev

import pytest
from records import by_benchmark, record, shifted, write_all
from rich.console import Console

from aim_exp.report.context import make_context
from aim_exp.report.html import environment
from aim_exp.report.load import load
from aim_exp.report.paper import Paper
from aim_exp.report.rows import AVERAGE, GAIN, Report, make_report
from aim_exp.report.tables import write_tables
from aim_exp.report.tables.csv import as_csv
from aim_exp.report.tables.latex import PAGE, as_latex
from aim_exp.report.tables.markdown import as_markdown
from aim_exp.report.tables.scores import effect_table, leaderboard, members_table
from aim_exp.report.tables.sweep import experts_table
from aim_exp.report.tables.table import NOTHING, Cell, Column, Row, Table
from aim_exp.report.tables.terminal import print_table
from aim_exp.report.units import PERCENT, VOLUME


def report_of(directory: Path, *records) -> Report:
    return make_report(load(write_all(directory, *records)))


def effect_of(directory: Path, *records) -> Table:
    report = report_of(directory, *records)
    (group,) = report.groups
    return effect_table(report, group, Paper(changes="percent"))


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def cells(table: Table, heading: str) -> list[Cell]:
    (number,) = [i for i, column in enumerate(table.columns) if column.heading == heading]
    return list(table.column(number))


@pytest.fixture
def seeds(tmp_path: Path) -> Report:
    """TIES gives one model for both seeds, DARE two."""

    def runs(method: str, omega: str, *amounts: float):
        return [record(f"method={method}", f"omega={omega}", f"seed={seed}", scores=shifted(by))
                for seed, by in enumerate(amounts)]  # fmt: skip

    return report_of(
        tmp_path / "seeds",
        *runs("ties", "null", 0, 0),
        *runs("ties", "0.4", 0.05, 0.05),
        *runs("dare_ties", "null", -0.12, -0.08),
        *runs("dare_ties", "0.4", 0.00, 0.02),
    )


# The type


def test_numbers_are_written_once_for_all():
    assert PERCENT.write(0.4734) == "47.3"
    assert PERCENT.margin(0.0411) == "±4.1"
    assert PERCENT.margin(None) == ""
    assert VOLUME.write(0.12345) == "0.123"
    assert PERCENT.write(-0.0001) == "0.0", "zero has no sign"
    assert Cell.number(PERCENT, None).text == NOTHING


def test_equal_as_written_is_equally_best():
    columns = (Column("model"), Column("x", numeric=True))
    values = (0.5001, 0.5004, 0.2, 0.9)
    rows = tuple(Row((Cell(str(value)), Cell.number(PERCENT, value)), competes=value < 0.9)
                 for value in values)  # fmt: skip
    table = Table(columns, (rows,)).with_best()
    assert [cell.strong for cell in table.column(1)] == [True, True, False, False]


def wide_table(names: int = 6) -> Table:
    columns = (Column("job"), Column("method"), Column("avg", numeric=True))
    columns += tuple(Column(f"tiny_math{i}", numeric=True, optional=True) for i in range(names))
    rows = tuple(
        Row(
            (
                Cell(str(job)),
                Cell("task_arithmetic"),
                *[Cell.number(PERCENT, 0.5, 0.04)] * (names + 1),
            )
        )
        for job in range(3)
    )
    return Table(columns, (rows,), unit="percent", margin="standard error")


@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_a_terminal_has_the_widest_form_that_fits(width: int):
    console = Console(width=width, file=StringIO(), record=True)
    print_table(console, wide_table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert text.count("50.0 ±4.0") == {50: 3, 80: 0, 100: 21, 200: 21}[width]
    assert ("± up to" in text) is (width == 80)
    assert ("by benchmark: in the files" in text) is (width < 80)
    assert "percent ± standard error" in text


def test_what_is_left_out_is_not_explained():
    table = Table(
        columns=(Column("merge"), Column("kept"), Column("wide", optional=True)),
        sections=((Row((Cell("ties"), Cell("1 ‡"), Cell("omega=0.4 †" + " x" * 20))),),),
        legend=("kept: so", "‡: chosen", "†: luck", "wide: too", "bold: best"),
    )
    consoles = [Console(width=width, file=StringIO(), record=True) for width in (100, 40)]
    for console in consoles:
        print_table(console, table)
    texts = [console.export_text() for console in consoles]
    assert ["†: luck" in text for text in texts] == [True, False]
    assert ["wide: too" in text for text in texts] == [True, False]
    for sentence in ("kept: so", "‡: chosen", "bold: best"):
        assert all(sentence in text for text in texts)


def test_headings_break_at_underscores_everywhere():
    console = Console(width=200, file=StringIO(), record=True)
    print_table(console, wide_table(2))
    assert re.search(r"^ +tiny_ +tiny_ *\n(job.*math0 +math1)", console.export_text(), re.M)


def test_html_escapes_everything():
    odd = '<b>"x"&'
    row = Row((Cell(odd, about=odd, link=odd), Cell(odd, detail=odd, below=odd)), key=odd)
    shown = Table((Column(odd, about=odd), Column(odd, numeric=True)), ((row,),))
    known = {"anchors": {}, "has_items": True}
    text = environment().get_template("table.html").make_module(known).table(shown, "title")
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&#34;x&#34;&amp;") == 10
    assert '<th scope="row" class="word"' in text


# Tables for papers


def test_seeds_are_taken_together_and_one_model_counts_once(seeds: Report):
    (group,) = seeds.groups
    table = effect_table(seeds, group)
    lead = [(row[0], row[1], row[2]) for row in texts(table)]
    assert lead == [
        *[(name, "", "1") for name in ("base", "code", "instruct", "math")],
        ("ties", "No", "1"), ("ties", "Yes", "1"),
        ("dare_ties", "No", "2"), ("dare_ties", "Yes", "2"),
    ]  # fmt: skip
    ties, dare = cells(table, "tiny_mmlu")[4], cells(table, "tiny_mmlu")[6]
    assert ties.margin is None
    assert dare.value == pytest.approx(0.70)
    assert dare.margin == pytest.approx(0.04 / 2**0.5)
    assert table.explained[0] == "percent ± standard deviation over n seeds"


def test_changes_are_relative_to_the_plain_merge(seeds: Report):
    (group,) = seeds.groups
    below = [
        cell.below
        for cell in cells(effect_table(seeds, group, Paper(changes="percent")), "tiny_mmlu")
    ]
    assert below == [""] * 5 + ["+6.2%", "", "+15.7%"]


def test_a_score_of_nothing_has_no_relative_change(tmp_path: Path):
    table = effect_of(
        tmp_path, record("omega=null", scores=(0.0, *shifted(0)[1:])), record("omega=0.4")
    )
    assert [cells(table, name)[-1].below for name in ("tiny_humaneval", "gain", "avg")] == [
        NOTHING, NOTHING, "+20.5%",
    ]  # fmt: skip


def test_best_is_best_of_the_merges_of_the_same_experts(tmp_path: Path):
    pair = "population.merge=[code,math]"
    table = effect_of(
        tmp_path,
        record("method=ties", "omega=null", scores=(0.5001, *shifted(0)[1:])),
        record("method=linear", "omega=null", scores=(0.5004, *shifted(-0.1)[1:])),
        record("method=ties", "omega=null", pair, scores=shifted(-0.2)),
    )
    assert [row[:2] for row in texts(table)[4:]] == [
        ["code+instruct+math", "ties"], ["code+instruct+math", "linear"], ["code+math", "ties"],
    ]  # fmt: skip
    strong = [[column.heading for cell, column in zip(row.cells, table.columns, strict=True)
               if cell.strong] for row in table.rows]  # fmt: skip
    everything = [*by_benchmark(shifted(0)), "avg", "gain"]
    assert strong == [[]] * 4 + [everything, ["tiny_humaneval"], everything]


def test_what_varies_in_aim_is_said(tmp_path: Path):
    table = effect_of(
        tmp_path,
        record("omega=null"),
        record("omega=0.4", "aim.scaling=uniform"),
        record("omega=0.4"),
    )
    assert [cell.text for cell in cells(table, "AIM")[4:]] == [
        "No", "omega=0.4 scaling=uniform", "omega=0.4 scaling=identity",
    ]  # fmt: skip


def test_references_come_last_and_are_never_best(tmp_path: Path):
    report = report_of(tmp_path, record(references={"joint": [0.99] * 6}))
    (group,) = report.groups
    for table in (effect_table(report, group), members_table(report, group)):
        assert texts(table)[-1][0] == "joint"
        assert not any(cell.strong for cell in table.rows[-1].cells)
    assert not any(row.cells[0].text == "joint" for row in leaderboard(report, group).rows)


# LaTeX


def check_latex(text: str) -> list[list[list[str]]]:
    """The cells of every table, if what is begun ends, and every row fits its columns."""
    begun: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            begun.append(name)
        else:
            assert begun.pop() == name
    assert begun == []
    assert text.isascii()
    tables = []
    for _, columns, body in re.findall(
        r"\\begin\{(tabular|longtable)\}\{([lr]+)\}\n(.*?)\\end\{\1\}", text, re.DOTALL
    ):
        rows = []
        for line in body.strip().splitlines():
            if re.match(r"\\(toprule|midrule|bottomrule|endhead|endfoot|caption)", line):
                continue
            row = re.fullmatch(r"(.*) \\\\\*?(\[-?2pt\])?", line)
            assert row, line
            cells = re.split(r"(?<!\\)&", row[1])
            assert len(cells) == len(columns), line
            for cell in cells:
                bare = re.sub(r"\$(\\omega|\\pm|\\star|-)\$|\\[%&#_${},]|\\[a-z]+(\{\})?", "", cell)
                assert not set("%&#_$~^\\") & set(bare), cell
                assert bare.count("{") == bare.count("}"), cell
            rows.append([cell.strip() for cell in cells])
        tables.append(rows)
    return tables


def test_latex_is_well_formed_whatever_things_are_called():
    odd = "a_b&c%d#e$f{g}h~i^j\\k"
    row = Row((Cell(odd), Cell(odd, strong=True), Cell("-1.5", below="-3.0%"), Cell("1", "±2")))
    columns = (Column(odd), Column(odd), *[Column("x", numeric=True)] * 2)
    (rows,) = check_latex(as_latex([Table(columns, ((row,),), title=odd, unit="omega = 1")]))
    escaped = r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    assert rows[1] == [escaped, rf"\textbf{{{escaped}}}", "$-$1.5", r"1 \aimdetail{$\pm$2}"]
    assert rows[2] == ["", "", r"\aimbelow{$-$3.0\%}", ""]


@pytest.mark.parametrize("name", ["[x]", "*x"])
def test_no_name_is_taken_for_an_argument(name: str):
    r"""As LaTeX would after `\\` and `\midrule`, even on the next line."""
    text = as_latex([Table((Column("model"), Column("n")), ((Row((Cell(name), Cell("1"))),),))])
    assert f"\n{{}}{name} & 1 \\\\\n" in text


@pytest.mark.parametrize(("pairs", "form"), [(13, "table*"), (14, "longtable")])
def test_what_is_longer_than_a_page_breaks_over_pages(pairs: int, form: str, tmp_path: Path):
    runs = [record(f"method.density={density / 100}", f"omega={omega}")
            for density in range(1, pairs + 1) for omega in ("null", "0.4")]  # fmt: skip
    text = as_latex([effect_of(tmp_path, *runs).named_once()])
    (rows,) = check_latex(text)
    assert (len(rows) - 1 > PAGE) is (form == "longtable")
    assert text.count(rf"\begin{{{form}}}") == 1
    assert len(rows) == 1 + 4 + 3 * pairs
    assert text.count(r"\label{tab:scores-1}") == 1


def test_the_formats_say_the_same(seeds: Report, tmp_path: Path):
    files = write_tables(seeds, tmp_path)
    assert [file.name for file in files] == ["scores.md", "scores.tex", "scores.csv"]
    markdown, latex, raw = (file.read_text() for file in files)
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    from_markdown = [re.sub(r"[*]", "", line).split("|")[1:-1] for line in lines[:1] + lines[2:]]
    from_latex = [
        [re.sub(r"\\(aimbelow|textbf|aimdetail)\{(.*?)\}", r"\2", cell.replace(r"$\pm$", "±"))
         .replace("$-$", "-").replace(r"\%", "%").replace(r"\_", "_") for cell in row]
        for row in check_latex(latex)[0]
    ]  # fmt: skip
    assert [[cell.strip() for cell in row] for row in from_markdown] == from_latex
    assert len(from_latex) == 1 + 4 + 4 + 2
    assert markdown.count("**") == 2 * latex.count(r"\textbf{") == 2 * 8
    rows = list(csv.DictReader(raw.splitlines()))
    assert len(rows) == 8
    (dare,) = [row for row in rows if (row["method"], row["aim"]) == ("dare_ties", "Yes")]
    assert (dare["n"], float(dare["tiny_mmlu"])) == ("2", pytest.approx(0.81))
    assert float(dare["tiny_mmlu_change"]) == 11.0
    assert float(dare["gain_sd"]) > 0


def test_several_groups_are_told_apart_in_csv(tmp_path: Path):
    runs = [record(f"benchmarks.limit={limit}", "omega=0.4") for limit in (3, 20)]
    files = write_tables(report_of(tmp_path / "runs", *runs), tmp_path)
    titles = {row["table"] for row in csv.DictReader(files[2].read_text().splitlines())}
    assert titles == {"[1] limit=3", "[2] limit=20"}
    assert files[1].read_text().count(r"\begin{table*}") == 2


def test_nothing_scored_makes_no_table(tmp_path: Path):
    runs = report_of(tmp_path / "runs", record("benchmarks=none", scores=None))
    assert write_tables(runs, tmp_path) == []
    assert not (tmp_path / "tables").exists()


def test_markdown_has_no_markup_but_its_own():
    columns = (Column("a|b"), Column("x", numeric=True))
    text = as_markdown(Table(columns, ((Row((Cell("*<b>|"), Cell("1", strong=True))),),)))
    assert text.splitlines() == [r"| a\|b | x |", "| --- | ---: |", r"| \*\<b\>\| | **1** |"]


def test_csv_has_numbers_without_rounding(tmp_path: Path):
    report = report_of(tmp_path, record(scores=(1 / 3, *shifted(0)[1:])))
    table = leaderboard(report, report.groups[0])
    (row,) = csv.DictReader(as_csv([table]).splitlines())
    assert float(row["tiny_humaneval"]) == pytest.approx(1 / 3)
    estimate = report.merges[0].estimates[AVERAGE]
    assert (float(row["avg"]), float(row["avg_stderr"])) == (estimate.mean, estimate.stderr)
    assert float(row["gain"]) == report.merges[0].estimates[GAIN].mean


def test_merges_against_how_many_experts_went_in(tmp_path: Path):
    def run(merge: str, by: float, method: str = "ties", seed: str = "seed=0"):
        chosen = f"method={method}", "omega=null", f"population.merge={merge}", seed
        return record(*chosen, scores=shifted(by))

    pairs = ("[code,instruct]", "[code,math]", "[instruct,math]")
    report = report_of(
        tmp_path,
        *(run(pair, by) for pair, by in zip(pairs, (-0.2, 0, 0.04), strict=True)),
        run("null", -0.02),
        run("[code,math]", 0, "linear"),  # of one number only: left out
    )
    table = experts_table(report)
    assert table
    means = {row.model: row.estimates[AVERAGE].mean for row in report.groups[0].members}
    plain = sum(shifted(0)) / 6
    gains = [100 * (plain + by - max(means[name] for name in of)) for by, of in (
        (-0.2, ("code", "instruct")), (0, ("code", "math")), (0.04, ("instruct", "math")),
    )]  # fmt: skip
    every = 100 * (plain - 0.02 - max(means[name] for name in ("code", "instruct", "math")))
    assert [row[:4] for row in texts(table)] == [
        ["ties omega=null", "2", "3", "2 of 3"], ["ties omega=null", "3", "1", "1 of 1"],
    ]  # fmt: skip
    shown = cells(table, "over the best expert")
    assert [cell.value for cell in shown] == pytest.approx([sum(gains) / 300, every / 100])
    assert shown[0].margin == pytest.approx(stdev(gains) / 100)
    assert shown[1].margin is None
    # Of a random method the spread over masks, where one merge has nothing else.
    masks = (run("null", by, "dare_ties", f"seed={seed}") for seed, by in enumerate((-0.02, 0.02)))
    random = experts_table(report_of(tmp_path / "masks", *masks, *(
        run("[code,math]", 0, "dare_ties", f"seed={seed}") for seed in (0, 1)
    )))  # fmt: skip
    assert random
    assert cells(random, "over the best expert")[1].margin == pytest.approx(stdev([-0.02, 0.02]))
    page = make_context(report, ())
    assert page.experts == table
    assert (
        experts_table(report_of(tmp_path / "one", run("null", 0), run("null", 0, "linear"))) is None
    )
