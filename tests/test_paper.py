"""`--labels FILE`: a paper's tables and figures from a sweep of two seeds, by no hand."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from records import accuracies, record, write_all

from aim_exp.errors import AimError
from aim_exp.report.__main__ import main
from aim_exp.report.paper import Paper, read_paper

LABELS = """\
names: {dare_ties: DARE + TIES, ties: TIES, tiny_gsm8k: GSM8K, tiny_mmlu: MMLU, omega: ω}
columns: [tiny_gsm8k, tiny_mmlu, average, gain]
margin: none
width: 3.25
font: serif
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    runs = [
        record(f"method={method}", f"omega={omega}", f"seed={seed}",
               scores=[accuracies(share, 60, 9 * seed + i) for i in range(6)])
        for seed in range(2)
        for method in ("ties", "dare_ties")
        for omega, share in (("null", 0.3), ("0.4", 0.7))
    ]  # fmt: skip
    return write_all(tmp_path / "sweep", *runs)


def test_tables_and_figures_are_as_the_file_says(sweep: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "paper.yaml", tmp_path / "paper"
    labels.write_text(LABELS)
    assert main([str(sweep), "--labels", str(labels), "--out", str(out)]) == 0
    text = (out / "tables" / "scores.md").read_text()
    heading = next(line for line in text.splitlines() if line.startswith("| Method"))
    assert [cell.strip() for cell in heading.split("|")[-5:-1]] == ["GSM8K", "MMLU", "avg", "gain"]
    assert "DARE + TIES" in text
    assert "tiny_" not in heading
    changes = re.findall(r"([+-]\d+\.\d)(\*?)", text)
    assert ("+40.0", "*") in changes, "in points, and marked where it holds"
    assert "±" not in text
    size = (out / "figures" / "omega_average.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", size)
    assert box
    assert float(box[1]) == pytest.approx(3.25 * 72, abs=0.5)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs texlive-latex-recommended")
@pytest.mark.parametrize("kind", ["points", "percent"])
def test_table_and_figures_compile(kind: str, sweep: Path, tmp_path: Path) -> None:
    """With nothing between the sweep and pdflatex but the file of names; no letter is lost."""
    labels, out = tmp_path / "paper.yaml", tmp_path / "paper"
    labels.write_text(f"{LABELS.replace('margin: none', 'margin: stderr')}changes: {kind}\n")
    assert main([str(sweep), "--labels", str(labels), "--out", str(out)]) == 0
    figures = "".join(
        rf"\begin{{figure}}\includegraphics[width=\columnwidth]{{{path}}}\end{{figure}}"
        for path in sorted((out / "figures").glob("*.pdf"))
    )
    (tmp_path / "paper.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx,longtable,xcolor}"
        rf"\begin{{document}}\input{{{out}/tables/scores}}{figures}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for problem in ("Missing character", "Undefined", "Overfull"):
        assert problem not in done.stdout


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nmes: {}", "nmes={}: Unexpected keyword argument; did you mean names"),
        ("changes: relative", "changes=relative: Input should be 'points' or 'percent'"),
        ("width: -1", "width=-1: Input should be greater than 0"),
        ("[", "cannot be read as YAML"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(AimError) as raised:
        read_paper(tmp_path / "paper.yaml")
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_are_whole_words() -> None:
    paper = Paper(names={"ties": "TIES", "dare_ties": "DARE"})
    assert paper.write("dare_ties and ties, properties") == "DARE and TIES, properties"
