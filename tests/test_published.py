"""The paper's tables, our runs beside them, and warnings where a set-up is not the known one."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Cli
from records import failed, record, write_all
from rich.console import Console

from aim_exp.errors import AimError
from aim_exp.population.sources import GivenPopulation
from aim_exp.report.__main__ import main
from aim_exp.report.load import load
from aim_exp.report.published import (
    BENCHMARKS,
    MEMBERS,
    key_of,
    other_populations,
    pairs,
    paper_table,
    published,
    published_table,
)
from aim_exp.report.rows import Report, make_report
from aim_exp.report.tables.terminal import print_whole_table
from aim_exp.store.run_record import RunRecord
from aim_exp.store.standing import unexpected
from aim_exp.types import Score

PUBLISHED_RUNS = (ROOT / "conf" / "experiment" / "published_checkpoints.yaml").read_text()
PAIR = "population.merge=[math,instruct]"


def ours(*overrides: str) -> RunRecord:
    """A run with the paper's scores for the members, and 1 percent everywhere for the merge."""
    members = {name: [*published()["", name, None].scores.values()] for name in MEMBERS}
    made = record(
        "population=llama2_13b", "benchmarks=paper", *overrides,
        members=members, scores=[0.01] * len(BENCHMARKS),
    )  # fmt: skip
    errors = {**dict.fromkeys(BENCHMARKS, 0.5), "gsm8k": 0.02, "mmlu": None}
    merged = made.models[-1]
    scores = {name: replace(score, stderr=errors[name]) for name, score in merged.scores.items()}
    return replace(made, models=(*made.models[:-1], replace(merged, scores=scores)))


def report_of(directory: Path, *records: RunRecord) -> Report:
    return make_report(load(write_all(directory, *records)))


def printed(table) -> str:
    console = Console(width=60, file=StringIO(), record=True, highlight=False)
    print_whole_table(console, table)
    return console.export_text()


def test_the_suite_has_the_papers_order():
    assert tuple(ours().benchmarks) == tuple(
        yaml.safe_load((ROOT / "conf/benchmarks/paper.yaml").read_text())["tasks"]
    )
    assert set(ours().benchmarks) == set(BENCHMARKS)


def test_the_papers_tables() -> None:
    rows = published()
    assert len(rows) == 44
    # Under the populations of the labels, the one change that turns its sign.
    plain, relaxed = (rows["task_arithmetic", "code+instruct", w] for w in (None, 0.4))
    assert relaxed.gain_as_published > plain.gain_as_published
    assert relaxed.gain_by_label < plain.gain_by_label
    lines = printed(paper_table()).splitlines()
    assert sum(" no " in line for line in lines) == sum(" yes " in line for line in lines) == 20
    (line,) = (line for line in lines if "29.27   36.00" in line)
    assert line.split() == "yes 29.27 36.00 54.18 8.30 46.20 32.00 0.280 0.238".split()
    after = lines[lines.index(line) + 1].split()
    assert after == "change +9.1% +4.7% +1.2% -1.2% +0.9% -4.2% +2.5% +10.6%".split()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([PAIR, "omega=0.4"], ("ties", "instruct+math", 0.4)),
        (["population.merge=[code,math]", "omega=null", "method=dare_ties"],
         ("dare_ties", "code+math", None)),
        (["method=checkpoint", "method.path=ahn1376/DARETaskArithmetic___Code-Math___AIM",
          "omega=null"], ("dare_linear", "code+math", 0.4)),
        (["method=checkpoint", "method.path=/models/WIDEN___Code-Math-Instruction_Tuned@main",
          "omega=null"], ("widen", "code+instruct+math", None)),
    ],
)  # fmt: skip
def test_where_a_run_stands(overrides: list[str], key: tuple[str, str, float | None]) -> None:
    assert key_of(ours(*overrides)) == key
    assert key in published()


def test_every_published_checkpoint_is_found() -> None:
    names = [word.strip(",") for word in PUBLISHED_RUNS.split() if word.startswith("ahn1376/")]
    assert len(names) == 40
    runs = (ours("method=checkpoint", f"method.path={name}", "omega=null") for name in names)
    assert {key_of(run) for run in runs} == {key for key in published() if key[0]}


def test_a_merged_checkpoint_that_is_relaxed_again_is_not_in_the_table() -> None:
    again = ours("method=checkpoint", "method.path=ahn1376/Ties___Code-Math", "omega=0.4")
    assert key_of(again) not in published()


def test_controls_and_other_lambdas_are_not_in_the_table(tmp_path: Path) -> None:
    control = ours(PAIR, "omega=0.4", "aim.scaling=shuffled")
    halved = ours(PAIR, "omega=0.4", "method.scale=0.5")
    plain = ours(PAIR, "omega=null", "aim.scaling=shuffled", "method.weight=1.0")
    both = pairs(report_of(tmp_path, control, halved, plain))
    assert [pair.label.split()[0] for pair in both] == [*MEMBERS, "2"]


def test_our_scores_beside_the_papers(tmp_path: Path) -> None:
    report = report_of(
        tmp_path, ours(PAIR, "omega=0.4"), ours(PAIR, "omega=0.6"), ours(PAIR, "method=linear")
    )
    both = pairs(report)
    assert [pair.label.split()[0] for pair in both] == [*MEMBERS, "0"]
    base, merged = both[0], both[-1]
    assert all(base.difference(name) == 0 and base.within(name) for name in BENCHMARKS)
    assert merged.difference("gsm8k") == pytest.approx(0.01 - 0.461)
    assert [merged.within(name) for name in BENCHMARKS] == [True, True, None, True, False, True]
    text = printed(published_table(report))
    assert "-45.1*" in text
    assert "4 of 5" in text
    assert other_populations(report) == []


def test_another_protocol_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(tmp_path / "runs", ours(), record("benchmarks=standard", scores=[0.5] * 6))
    assert main([str(tmp_path / "runs"), "--published"]) == 1
    output = capsys.readouterr()
    assert "1: benchmarks=standard is another protocol than the paper's" in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "runs" / "results.csv").exists()
    with pytest.raises(AimError, match="none of these runs"):
        pairs(report_of(tmp_path / "failed", failed("no")))


def test_another_population_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = ours()
    write_all(tmp_path, replace(mine, population=replace(mine.population, name="mine")))
    assert main([str(tmp_path), "--published"]) == 0
    output = capsys.readouterr().out
    assert "warning: the paper's population is llama2_13b; these runs use mine" in output


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--paper"]) == 0
    assert "code+instruct+math" in capsys.readouterr().out
    assert main([str(write_all(tmp_path, ours())), "--published"]) == 0
    assert "difference" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([])


# Expected scores


def test_the_papers_population_expects_the_papers_scores() -> None:
    config = yaml.safe_load((ROOT / "conf" / "population" / "llama2_13b.yaml").read_text())
    assert config["expected"]["suite"] == "paper"
    scores = config["expected"]["scores"]
    assert list(scores) == list(MEMBERS)
    for name in MEMBERS:
        rows = {b: value / 100 for b, value in scores[name].items()}
        assert rows == pytest.approx(published()["", name, None].scores)


def test_far_is_three_standard_errors() -> None:
    expected = {"code": {"x": 0.5, "y": 0.5}, "absent": {"x": 0.5}}
    near = {"x": Score(0.64, 0.05, 100), "y": Score(0.36, 0.05, 100)}
    assert unexpected(expected, {"code": near}) == []
    far = {"x": Score(0.66, 0.05, 100), "z": Score(0.0, 0.0, 100)}
    (line,) = unexpected(expected, {"code": far})
    assert line.startswith("code on x: 66.0 is more than 3 standard errors (5.0) from the")
    # None of 8 items, measured error 0: by chance, if 30 percent are expected.
    assert unexpected({"code": {"x": 0.3}}, {"code": {"x": Score(0.0, 0.0, 8)}}) == []


def test_a_run_warns_where_the_set_up_differs(
    cli: Cli, tiny_population: Path, tmp_path: Path
) -> None:
    def warnings(suite: str, directory: str) -> list[str]:
        expected = (
            f"{{suite: {suite}, scores: {{base: {{tiny_mmlu: 0.5}}, code: {{tiny_mbpp: 75}}}}}}"
        )
        done = cli(
            "population=custom", f"population.base={tiny_population / 'base'}",
            f"population.experts={{code: {tiny_population / 'code'}}}", "method=none",
            f"population.expected={expected}", "benchmarks.limit=16", "tracker=none",
            f"hydra.run.dir={directory}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / directory / "result.json").read_text())["warnings"]

    differs, toy = sorted(warnings("tiny", "same"))
    assert differs.startswith("base on tiny_mmlu: ")
    assert toy.startswith("benchmarks=tiny: these are toy tasks")
    assert warnings("paper", "other") == [toy]


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (5, "must be a table"),
        ({"suite": "paper"}, "must be a table"),
        ({"suite": "paper", "scores": {"base": {"mmlu": "many"}}}, "must be a table"),
        ({"suite": "paper", "scores": {"nobody": {"mmlu": 5}}}, "nobody: there is no such model"),
        (None, None),
        ({"suite": "paper", "scores": {"a": {"mmlu": 5}}}, None),
    ],
)
def test_expected_scores_are_checked(expected: object, words: str | None) -> None:
    source = GivenPopulation(
        name="mine", merge=None, references=None, base="b", experts={"a": "x"}, specialty=None,
        chat_template=None, expected=expected,
    )  # fmt: skip
    problems = source.problems()
    assert len(problems) == (words is not None)
    assert words is None or words in problems[0]
