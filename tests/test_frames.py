"""Frames and CSV files: tidy, whole, and the same wherever the runs lie."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from command_line import run_here
from conftest import ROOT
from documentation import blocks
from matplotlib.figure import Figure
from records import (
    ITEMS,
    MERGED,
    POPULATION,
    accuracies,
    failed,
    record,
    relaxed_sweep,
    write_all,
)

import aim_exp
from aim_exp.errors import AimError
from aim_exp.report.__main__ import main
from aim_exp.report.csv_files import write_csvs
from aim_exp.report.differences import differences
from aim_exp.report.load import load
from aim_exp.report.rows import make_report
from aim_exp.report.tables.csv import MISSING

FIRST = ["sweep", "job", "status", "model", "role", "benchmark", "metric", "value", "stderr", "n",
         "method", "omega", "relaxed", "seed"]  # fmt: skip


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain and relaxed merges with their items, two populations; one fails, one is not run."""
    ITEMS.clear()  # of records that other tests made
    runs = []
    for seed in range(2):
        members = {name: [accuracies(share, 30, seed) for share in row]
                   for name, row in POPULATION.items()}  # fmt: skip
        for number, omega in enumerate(("omega=null", "omega=0.4")):
            row = [accuracies(share, 30, 5 + number) for share in MERGED]
            runs.append(record(omega, f"population.seed={seed}", scores=row, members=members))
    weights = "method.weight={code: 0.5, instruct: 0.7, math: 1}"
    runs.append(record("omega=0.4", weights, references={"joint": MERGED}))
    runs.append(failed("weight={...}: no expert is called sql", "omega=0.4"))
    return write_all(tmp_path_factory.mktemp("sweep"), *runs, asked_for=7)


def test_a_line_per_model_and_benchmark(sweep: Path) -> None:
    frame = aim_exp.results(sweep)
    assert list(frame.columns[:14]) == FIRST
    scored = frame[frame.benchmark.notna()]
    assert len(scored) == 6 * (2 * 4 + 1 + 5), "members once a population; a reference; merges"
    merged = frame[(frame.role == "merged") & frame.benchmark.notna()]
    made = load(sweep).jobs[0].record
    assert made
    assert made.merged
    expected = [score.value for score in made.merged.scores.values()]
    assert list(merged[merged.job == "0"].value) == expected
    assert set(merged.omega) == {1.0, 0.4}
    assert list(merged[merged.omega == 1].relaxed.unique()) == [False]
    assert frame[frame.relaxed & frame.benchmark.notna()].omega.unique().tolist() == [0.4]
    assert list(frame.status[frame.job == "6"]) == ["not run"]
    assert list(frame.status[frame.job == "5"]) == ["failed"]
    members = frame[frame.role.isin(["base", "expert", "reference"])]
    assert members.loc[:, "method":].isna().all(axis=None), "members have no settings"


def test_settings_are_numbers_and_words(sweep: Path) -> None:
    frame = aim_exp.results(sweep)
    merged = frame[(frame.role == "merged") & frame.benchmark.notna()]
    assert set(merged["method.density"]) == {0.2}
    assert set(merged["benchmarks.limit"]) == {"none"}
    assert set(merged["calibration.n_samples"]) == {256}
    assert set(merged["population.merge"]) == {"code+instruct+math"}
    weights = merged[merged.job == "4"].iloc[0]
    names = ("code", "instruct", "math")
    assert [weights[f"method.weight.{name}"] for name in names] == [0.5, 0.7, 1]
    assert set(merged[merged.job == "0"]["method.weight"]) == {1.0}


def test_equal_weights_are_one_number(tmp_path: Path) -> None:
    weights = "method.weight={code: 0.5, instruct: 0.5, math: 0.5}"
    frame = aim_exp.results(write_all(tmp_path, record(weights)))
    assert set(frame["method.weight"].dropna()) == {0.5}
    assert "method.weight.code" not in frame


def test_the_page_of_the_docs_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, members = (
        [accuracies(0.5, 20, i) for i in range(6)],
        {name: [accuracies(0.3, 20, i) for i in range(6)] for name in ("base", "code")},
    )
    runs = [record(f"method={method}", f"omega={omega}", scores=right, members=members)
            for method in ("ties", "dare_ties") for omega in ("null", "0.4")]  # fmt: skip
    write_all(tmp_path / "outputs" / "sweeps" / "one", *runs)
    monkeypatch.chdir(tmp_path)
    page = list(blocks(ROOT / "docs" / "python.md"))
    snippets = (block.text for block in page if block.language == "python")
    code = [text for text in snippets if text.startswith("# ")]  # files of their own
    assert len(code) == 3
    for text in code[:2]:  # the third one runs an experiment
        exec(compile(text, "python.md", "exec"), {})
    assert "dare_ties" in capsys.readouterr().out
    assert all(Path(name).stat().st_size > 1000 for name in ("front.png", "ties.pdf"))
    *_, arguments = (words for block in page for words in block.commands)
    assert arguments[:3] == ["python", "-m", "aim_exp.report"]
    assert main(arguments[3:]) == 0
    assert "theirs" in Path("outputs/with_theirs/results.csv").read_text()


def test_a_figure_is_of_the_runs_in_a_frame(tmp_path: Path) -> None:
    scores = aim_exp.results(relaxed_sweep(tmp_path))
    whole = aim_exp.plot_sweep(scores)
    assert isinstance(whole, Figure)
    one = aim_exp.plot_sweep(scores[scores.method == "ties"], x="omega", quantity="tiny_mmlu")
    named = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in (whole, one)]
    assert "dare_ties" in named[0]
    assert "dare_ties" not in named[1]
    assert one.axes[0].get_ylabel() == "tiny_mmlu (%)"
    axes = ("tiny_mmlu", "tiny_math")
    assert aim_exp.plot_front(scores, axes).axes[0].get_xlabel() == "tiny_mmlu (%)"
    dose = aim_exp.plot_dose(scores.query("omega < 1 and method != 'linear'"))
    assert "q_proj" in [tick.get_text() for tick in dose.axes[0].get_yticklabels()]


def test_what_cannot_be_drawn_is_one_line(sweep: Path) -> None:
    scores = aim_exp.results(sweep)
    for draw, words in (
        (aim_exp.plot_saliency, "these runs have no saliency"),
        (aim_exp.plot_dose, "these runs have not what a relaxation left"),
        (partial(aim_exp.plot_sweep, x="omga"), "x omga: the runs have no such setting"),
        (partial(aim_exp.plot_sweep, quantity="avg"), "quantity=avg: there is none"),
    ):
        with pytest.raises(AimError, match=words):
            draw(scores)
    with pytest.raises(AimError, match="does not say where they are"):
        aim_exp.plot_front(pd.DataFrame(scores.to_dict()))


@pytest.mark.filterwarnings("ignore:.*are gone:UserWarning")
def test_every_item_is_a_line(sweep: Path) -> None:
    with pytest.warns(
        UserWarning, match="4, merged on tiny_humaneval: the results by item are gone"
    ):
        frame = aim_exp.items(sweep)
    results = aim_exp.results(sweep)
    means = frame.groupby(["job", "model", "benchmark"]).value.mean()
    assert len(means) == 6 * (2 * 4 + 4)
    known = results[results.job.isin(list("0123"))].set_index(["job", "model", "benchmark"]).value
    assert means.to_dict() == pytest.approx(known.dropna().to_dict())
    line = frame[(frame.model == "merged") & (frame.value == 1)].iloc[0]
    assert (line.prompt, line.answer) == (f"question {line.doc_id}", line.target)
    assert not {"stderr", "n"} & set(frame.columns)


def test_nothing_is_an_empty_frame(tmp_path: Path) -> None:
    assert list(aim_exp.results(tmp_path).columns) == FIRST
    assert aim_exp.items(tmp_path).empty


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, aim_exp; print(*{'torch', 'pandas', 'numpy', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_plain_merges_stay_where_one_groups_by_omega(sweep: Path, tmp_path: Path) -> None:
    made = make_report(load(sweep))
    write_csvs(made, differences(made), tmp_path)
    frame = pd.read_csv(tmp_path / "results.csv")
    assert frame.groupby("omega").average.mean().index.tolist() == [0.4, 1.0]
    assert list(frame.job) == list(range(7))
    assert list(frame.status) == ["completed"] * 5 + ["failed", "not run"]
    assert list(frame.directory) == list(range(7)), "relative"
    assert set(frame.relaxed.dropna()) == {True, False}
    text = (tmp_path / "results.csv").read_text() + (tmp_path / "scores.csv").read_text()
    cells = {cell for line in text.splitlines() for cell in line.split(",")}
    assert not cells & MISSING
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 6 * (2 * 4 + 1 + 5)
    assert len(set(scores.benchmark)) == 6


def test_a_null_setting_is_a_word(tmp_path: Path) -> None:
    runs = [record(), record("benchmarks.limit=10"), record("benchmarks.system_instruction=NA")]
    made = make_report(load(write_all(tmp_path, *runs)))
    write_csvs(made, differences(made), tmp_path)
    frame = pd.read_csv(tmp_path / "results.csv")
    assert list(frame["benchmarks.limit"]) == ["none", "10", "none"]
    assert list(frame["benchmarks.system_instruction"]) == ["none", "none", '"NA"']


REMAKE = """
import sys
from pathlib import Path
from aim_exp import report
report.refresh(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_the_report_is_the_same_from_anywhere(tiny_cache: Path, tmp_path: Path) -> None:
    """A real sweep moved, its cache deleted, in a fresh process, from another directory."""
    cache, sweep = shutil.copytree(tiny_cache, tmp_path / "cache"), tmp_path / "sweep"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = run_here(
        "-m", "omega=null,0.4", "benchmarks.limit=8", "calibration.n_samples=16", "tracker=none",
        f"cache_dir={cache}", f"hydra.sweep.dir={sweep}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = ("results.csv", "scores.csv", "differences.csv", "report.md", "report.html")
    first = {name: (sweep / name).read_bytes() for name in names}
    frames = aim_exp.results(sweep), aim_exp.items(sweep)
    shutil.rmtree(cache)
    (tmp_path / "else" / "where").mkdir(parents=True)
    moved = shutil.move(sweep, tmp_path / "else" / "where" / "moved")
    for name in names:
        (moved / name).unlink()
    shutil.rmtree(moved / "shared" / "comparisons")
    subprocess.run(
        [sys.executable, "-c", REMAKE, "where/moved"],
        cwd=tmp_path / "else", env=environment, check=True, timeout=600,
    )  # fmt: skip
    for name in names:
        assert (moved / name).read_bytes() == first[name], name
    for before, after in zip(frames, (aim_exp.results(moved), aim_exp.items(moved)), strict=True):
        pd.testing.assert_frame_equal(before, after)
    assert pd.read_csv(moved / "differences.csv").p.notna().all(), "every test could be made"


def test_a_table_of_filters_is_one_value(tmp_path: Path) -> None:
    tables = ("take={*.mlp.*: base, *: null}", "method.weight={*.mlp.*: 0.5, *: 1}")
    write_all(tmp_path, record("omega=0.4"), record("omega=0.4", *tables))
    frame = aim_exp.results(tmp_path)
    merged = frame[frame.role == "merged"].groupby("job").first()
    assert merged["take"].tolist() == ["none", "{*.mlp.*: base, *: null}"]
    assert merged["method.weight"].tolist() == [1, "{*.mlp.*: 0.5, *: 1}"]
