"""Tables for papers: rows as in the paper, seeds taken together, three formats that agree."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
from records import BENCHMARKS, POPULATION, by_benchmark, drawn, record, shifted, write_all

from aim_exp.report import rebuild
from aim_exp.report.repeats import AVERAGE, GAIN
from aim_exp.report.results import Results, collect
from aim_exp.report.tables import score_tables
from aim_exp.report.tables.formats import as_markdown, write_score_tables
from aim_exp.report.tables.latex import PAGE, as_latex
from aim_exp.report.tables.layout import layout
from aim_exp.store.records import RunRecord

COLUMNS = (*BENCHMARKS, AVERAGE, GAIN)


@pytest.fixture
def seeds(tmp_path: Path) -> Results:
    """TIES gives one model for both seeds, DARE two."""
    write_all(
        tmp_path,
        drawn("t", record("ties", None), 0),
        drawn("t", record("ties", None), 1),
        drawn("u", record("ties", 0.4, shifted(0.05)), 0),
        drawn("u", record("ties", 0.4, shifted(0.05)), 1),
        drawn("d0", record("dare_ties", None, shifted(-0.12)), 0),
        drawn("d1", record("dare_ties", None, shifted(-0.08)), 1),
        drawn("e0", record("dare_ties", 0.4, shifted(0.00)), 0),
        drawn("e1", record("dare_ties", 0.4, shifted(0.02)), 1),
    )
    return collect(tmp_path)


def test_seeds_are_taken_together_and_one_model_counts_once(seeds: Results) -> None:
    (table,) = score_tables(seeds)
    found = {(e.method or e.experts, e.aim): e for e in table.entries}
    assert [e.n for e in table.entries if e.kind == "member"] == [1] * 4
    assert found["ties", "No"].n == found["ties", "Yes"].n == 1
    assert found["ties", "Yes"].spreads["mmlu"].deviation is None
    dare = found["dare_ties", "No"].spreads["mmlu"]
    assert (dare.n, round(dare.mean, 6)) == (2, 0.70)
    assert dare.deviation == pytest.approx(0.04 / 2**0.5)
    assert dare.stderr == pytest.approx((0.7 * 0.3 / 149) ** 0.5, rel=0.01)
    assert found["dare_ties", "Yes"].spreads[GAIN].stderr


def test_changes_are_relative_to_the_plain_merge(seeds: Results) -> None:
    (table,) = score_tables(seeds)
    changes = {e.method: e.changes or {} for e in table.entries if e.kind == "relaxed"}
    assert changes["ties"]["mmlu"] == pytest.approx(100 * (0.85 / 0.80 - 1))
    assert changes["dare_ties"]["mmlu"] == pytest.approx(100 * (0.81 / 0.70 - 1))
    assert all(e.changes is None for e in table.entries if e.kind != "relaxed")


def test_a_score_of_nothing_has_no_relative_change(tmp_path: Path) -> None:
    nothing = (0.0, *shifted(0)[1:])
    write_all(tmp_path, record("ties", None, nothing), record("ties", 0.4))
    (table,) = score_tables(collect(tmp_path))
    (relaxed,) = [e for e in table.entries if e.kind == "relaxed"]
    assert relaxed.changes
    assert set(COLUMNS) - set(relaxed.changes) == {"humaneval", GAIN}, "no volume either"
    assert "*–*" in as_markdown([table])


def test_best_is_best_of_the_merges_as_printed(tmp_path: Path) -> None:
    write_all(
        tmp_path,
        record("ties", None, (0.5001, *shifted(0)[1:])),
        record("linear", None, (0.5004, *shifted(-0.1)[1:])),
    )
    (table,) = score_tables(collect(tmp_path))
    ties, linear = (e for e in table.entries if e.method)
    assert ties.best == {*COLUMNS}
    assert linear.best == {"humaneval"}, "both are printed as 50.0"
    assert not any(e.best for e in table.entries if not e.method)


def test_other_populations_and_protocols_have_tables_of_their_own(tmp_path: Path) -> None:
    def scored(value: float, seed: int | None, **changed) -> RunRecord:
        made = record("ties", None, shifted(value))
        rows = {
            name: by_benchmark([x + value / 4 for x in row]) for name, row in POPULATION.items()
        }
        population = {**made.population, "seed": seed}
        return replace(made, population=population, population_scores=rows, **changed)

    limited = {name: {"protocol": {"limit": 3}} for name in BENCHMARKS}
    write_all(tmp_path / "seeds", scored(0.0, 0), scored(0.04, 1))
    write_all(tmp_path / "limits", scored(0.0, 0), scored(0.04, 0, benchmarks=limited))
    write_all(tmp_path / "others", scored(0.0, None), scored(0.04, None))
    (together,) = score_tables(collect(tmp_path / "seeds"))
    assert [e.n for e in together.entries] == [2] * 5, "base and the experts too"
    assert together.entries[0].spreads["mmlu"].deviation == pytest.approx(0.01 / 2**0.5)
    for apart in ("limits", "others"):
        tables = score_tables(collect(tmp_path / apart))
        assert [[e.n for e in table.entries] for table in tables] == [[1] * 5] * 2, apart


def test_what_varies_in_aim_is_said(tmp_path: Path) -> None:
    aim = {"statistic": "mean_abs"}
    write_all(
        tmp_path,
        record("ties", None),
        record("ties", 0.4, aim={**aim, "scaling": "uniform"}),
        record("ties", 0.4, aim={**aim, "scaling": "identity"}),
    )
    (table,) = score_tables(collect(tmp_path))
    assert [e.aim for e in table.entries if e.method] == [
        "No", "omega=0.4, scaling=uniform", "omega=0.4, scaling=identity",
    ]  # fmt: skip


def test_combinations_of_experts_are_blocks(tmp_path: Path) -> None:
    pair = {**record().population, "merged": ["code", "math"]}
    write_all(tmp_path, record("ties", None), record("ties", None, population=pair))
    (table,) = score_tables(collect(tmp_path))
    shown = layout(table)
    assert shown.leads == ("Experts", "Method", "AIM")
    assert [[row[0].text for row in block] for block in shown.blocks] == [
        ["base", "code", "instruct", "math"], ["code+instruct+math"], ["code+math"],
        ["Standard error"],
    ]  # fmt: skip


def test_references_stand_last_and_do_not_compete(tmp_path: Path) -> None:
    joint = {"joint": by_benchmark([0.99] * 6)}
    write_all(tmp_path, record(reference_scores=joint))
    (table,) = score_tables(collect(tmp_path))
    assert table.entries[-1].experts == "joint"
    assert not table.entries[-1].best
    assert [e.kind for e in table.entries] == ["member"] * 4 + ["relaxed", "reference"]


def check_latex(text: str) -> list[list[list[str]]]:
    """The cells of each table: environments and braces balanced, as many cells as columns.

    AssertionError for a character that LaTeX keeps for itself.
    """
    begun: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{([^}]+)\}", text):
        if verb == "begin":
            begun.append(name)
        else:
            assert begun.pop() == name
    assert begun == []
    assert text.isascii()
    tables = []
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        rows = []
        for line in body.strip().splitlines():
            if line in (r"\toprule", r"\midrule", r"\bottomrule", r"\addlinespace"):
                continue
            row = re.fullmatch(r"(.*) \\\\(\[-?2pt\])?", line)
            assert row, line
            cells = re.split(r"(?<!\\)&", row[1])
            assert len(cells) == len(columns), line
            for cell in cells:
                bare = re.sub(r"\$(\\omega|-)\$|\\[%&#_${},]|\\[a-z]+(\{\})?", "", cell)
                assert not set("%&#_$~^\\") & set(bare), cell
                assert bare.count("{") == bare.count("}"), cell
            rows.append([cell.strip() for cell in cells])
        tables.append(rows)
    return tables


def test_latex_is_well_formed_whatever_things_are_called(tmp_path: Path, seeds: Results) -> None:
    (seeded,) = check_latex(as_latex(score_tables(seeds)))
    assert len(seeded) == 1 + 4 + 2 * 3 + 2 + 1, "two rows of deviations, of DARE"
    assert sum(r"\aimdeviation{" in "".join(row) for row in seeded) == 2
    odd = "a_b&c%d#e$f{g}h~i^j\\k"
    scores = {odd: 0.5, "mmlu": 0.25}
    made = record("ties", None, scores=shifted(0))
    changed = {"scores": scores, "stderr": dict.fromkeys(scores, 0.01)}
    rows = {"base": scores, odd: {odd: 0.1, "mmlu": 0.1}}
    write_all(
        tmp_path / "odd", replace(made, **changed, population_scores=rows, population_stderr={})
    )
    (table,) = check_latex(as_latex(score_tables(collect(tmp_path / "odd"))))
    escaped = r"a\_b\&c\%d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
    assert table[0][2] == escaped
    assert escaped in [row[0] for row in table]


@pytest.mark.parametrize("name", ["[x]", "*x"])
def test_no_name_is_taken_for_an_argument(name: str, tmp_path: Path) -> None:
    r"""As LaTeX would after `\\` and `\midrule`, even on the next line."""
    members = {model: by_benchmark(POPULATION[model]) for model in ("base", "code")}
    made = record("ties", None, population_scores={**members, name: members["code"]})
    write_all(tmp_path, replace(made, population_stderr=None))
    lines = as_latex(score_tables(collect(tmp_path))).splitlines()
    assert [line[: len(name) + 3] for line in lines if name in line] == [f"{{}}{name} "]


@pytest.mark.parametrize(("pairs", "pages"), [(13, 1), (14, 2), (30, 3)])
def test_what_is_longer_than_a_page_is_several_tables(
    pairs: int, pages: int, tmp_path: Path
) -> None:
    """Broken between merges, never within one; each has the head, and one number for all."""
    runs = [
        record("ties", omega, method_settings={"density": density})
        for density in range(1, pairs + 1)
        for omega in (None, 0.4)
    ]
    write_all(tmp_path, *runs)
    text = as_latex(score_tables(collect(tmp_path)))
    found = check_latex(text)
    assert sum(map(len, found)) == pages + 4 + 3 * pairs + 1
    assert all(len(rows) - 1 <= PAGE for rows in found)
    assert [rows[0][:3] for rows in found] == [["Model", "AIM", "humaneval"]] * pages
    assert all(rows[1][0].startswith("ties") for rows in found[1:])
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == pages
    assert text.count(r"\label{tab:scores-1}") == 1
    assert text.count(r"\addtocounter{table}{-1}\caption[]{(continued)}") == pages - 1


def test_a_merge_with_more_rows_than_a_page_is_broken_and_named_again(tmp_path: Path) -> None:
    omegas = [None, *(round(0.01 * n, 2) for n in range(1, 41))]
    runs = [record(method, omega) for method in ("ties", "linear") for omega in omegas]
    write_all(tmp_path, *runs)
    found = check_latex(as_latex(score_tables(collect(tmp_path))))
    assert len(found) > 2
    assert all(len(rows) - 1 <= PAGE for rows in found)
    assert all(rows[1][0] in ("base", "ties", "linear") for rows in found)
    for rows in found:
        assert "change" not in rows[1][1]
        assert [r"\aimchange{change}"] * sum("omega" in row[1] for row in rows) == [
            row[1] for row in rows if "change" in row[1]
        ]


def test_methods_stand_apart_and_changes_belong_to_their_row(seeds: Results) -> None:
    lines = as_latex(score_tables(seeds)).splitlines()
    (space,) = [i for i, line in enumerate(lines) if line == r"\addlinespace"]
    assert lines[space - 1].startswith(r" & \aimchange{change}")
    assert lines[space + 1].startswith(r"dare\_ties & No & 2")
    before = [lines[i - 1] for i, line in enumerate(lines) if r"\aimchange{change}" in line]
    assert [line.endswith(r"\\[-2pt]") for line in before] == [True, True]


def test_the_three_formats_say_the_same(seeds: Results, tmp_path: Path) -> None:
    files = write_score_tables(seeds, tmp_path / "out")
    assert [file.name for file in files] == ["scores.md", "scores.tex", "scores.csv"]
    markdown, latex, raw = (file.read_text() for file in files)
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    from_markdown = [re.sub(r"[*]", "", line).split("|")[1:-1] for line in lines[:1] + lines[2:]]
    from_latex: list[list[str]] = []
    for row in check_latex(latex)[0]:
        if any(r"\aimdeviation" in cell for cell in row):
            deviations = [re.sub(r"\\aimdeviation\{([\d.]+)\}", r" ± \1", cell) for cell in row]
            from_latex[-1] = [a + b for a, b in zip(from_latex[-1], deviations, strict=True)]
        else:
            texts = [re.sub(r"\\(aimchange|textbf)\{(.*)\}", r"\2", cell) for cell in row]
            from_latex.append([re.sub(r"\$(-)\$|\\([_%])", r"\1\2", text) for text in texts])
    assert len(from_markdown) == 1 + 4 + 2 * 3 + 1
    strip = [
        [[cell.strip() for cell in row] for row in rows] for rows in (from_markdown, from_latex)
    ]
    assert strip[0] == strip[1]
    rows = list(csv.DictReader(raw.splitlines()))
    assert len(rows) == 8
    dare = next(row for row in rows if row["method"] == "dare_ties" and row["omega"] == "0.4")
    assert (dare["n"], float(dare["mmlu"])) == ("2", pytest.approx(0.81))
    assert float(dare["mmlu_change_percent"]) == pytest.approx(100 * (0.81 / 0.70 - 1))
    assert float(dare["hypervolume_gain_stderr"]) > 0


def test_bold_is_bold_in_both(seeds: Results) -> None:
    tables = score_tables(seeds)
    bold = sum(len(entry.best) for entry in tables[0].entries)
    assert bold == 8
    assert as_markdown(tables).count("**") == 2 * bold
    assert as_latex(tables).count(r"\textbf{") == bold


def test_the_report_links_them(seeds: Results, tmp_path: Path) -> None:
    rebuild(seeds, tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    linked = re.findall(r"\((tables/[^)]+)\)", page)
    assert linked == ["tables/scores.md", "tables/scores.tex", "tables/scores.csv"]
    assert all((tmp_path / "out" / path).stat().st_size for path in linked)


def test_nothing_scored_makes_no_table(tmp_path: Path) -> None:
    write_all(tmp_path, RunRecord(status="failed", method="ties", error="x"))
    assert write_score_tables(collect(tmp_path), tmp_path) == []
    assert not (tmp_path / "tables").exists()
