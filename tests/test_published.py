"""The paper's tables, our runs beside them, and warnings where a set-up is not the known one."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Cli
from rich.console import Console

from aim_exp.errors import AimError
from aim_exp.population.sources import GivenPopulation
from aim_exp.report.__main__ import main
from aim_exp.report.paper import print_paper, print_published
from aim_exp.report.published import BENCHMARKS, MEMBERS, key_of, pairs, published
from aim_exp.report.results import collect
from aim_exp.run.standing import unexpected
from aim_exp.store.records import RunRecord
from aim_exp.types import Score

PUBLISHED_RUNS = (ROOT / "conf" / "experiment" / "published_checkpoints.yaml").read_text()


def ours(
    method: str = "ties",
    merged: tuple[str, ...] = ("math", "instruct"),
    omega: float | None = 0.4,
    path: str | None = None,
    suite: str = "paper",
) -> RunRecord:
    """A run with the paper's scores for the members, and 1 percent everywhere for the merge."""
    members = {name: published()["", name, None].scores | {"extra": 0.5} for name in MEMBERS}
    return RunRecord(
        method=method,
        method_settings={} if path is None else {"path": path},
        omega=omega,
        population={"name": "llama2_13b", "merged": list(merged)},
        suite=suite,
        scores=dict.fromkeys([*BENCHMARKS, "extra"], 0.01),
        stderr={**dict.fromkeys([*BENCHMARKS, "extra"], 0.5), "gsm8k": 0.02, "mmlu": None},
        population_scores=members,
        population_stderr={name: dict.fromkeys(row, 0.01) for name, row in members.items()},
    )


def written(directory: Path, *records: RunRecord) -> Path:
    for number, record in enumerate(records):
        (directory / str(number)).mkdir(parents=True)
        record.write(directory / str(number))
    return directory


def printed(show) -> str:
    console = Console(width=60, file=StringIO(), record=True, highlight=False)
    show(console)
    return console.export_text()


def test_the_papers_tables() -> None:
    rows = published()
    assert len(rows) == 44
    # Under the populations of the labels, the one change that turns its sign.
    plain, relaxed = (rows["task_arithmetic", "code+instruct", w] for w in (None, 0.4))
    assert relaxed.gain_as_published > plain.gain_as_published
    assert relaxed.gain_by_label < plain.gain_by_label
    lines = printed(print_paper).splitlines()
    assert sum(" no " in line for line in lines) == sum(" yes " in line for line in lines) == 20
    (line,) = (line for line in lines if "29.27   36.00" in line)
    assert line.split() == "yes 29.27 36.00 54.18 8.30 46.20 32.00 0.280 0.238".split()
    after = lines[lines.index(line) + 1].split()
    assert after == "change +9.1% +4.7% +1.2% -1.2% +0.9% -4.2% +2.5% +10.6%".split()


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (ours(), ("ties", "instruct+math", 0.4)),
        (ours("authors/dare_ties", ("code", "math"), None), ("dare_ties", "code+math", None)),
        (
            ours("checkpoint", MEMBERS[1:], None, "ahn1376/DARETaskArithmetic___Code-Math___AIM"),
            ("dare_linear", "code+math", 0.4),
        ),
        (
            ours("checkpoint", (), None, "/models/WIDEN___Code-Math-Instruction_Tuned@main"),
            ("widen", "code+instruct+math", None),
        ),
    ],
)
def test_where_a_run_stands(record: RunRecord, key: tuple[str, str, float | None]) -> None:
    assert key_of(record) == key
    assert key in published()


def test_every_published_checkpoint_is_found() -> None:
    names = [word.strip(",") for word in PUBLISHED_RUNS.split() if word.startswith("ahn1376/")]
    assert len(names) == 40
    keys = {key_of(ours("checkpoint", (), None, name)) for name in names}
    assert keys == {key for key in published() if key[0]}


def test_a_merged_checkpoint_that_is_relaxed_again_is_not_in_the_table() -> None:
    again = ours("checkpoint", MEMBERS[1:], 0.4, "ahn1376/Ties___Code-Math")
    assert key_of(again) not in published()


def test_controls_and_other_lambdas_are_not_in_the_table(tmp_path: Path) -> None:
    control = replace(ours(), aim={"scaling": "shuffled"})
    halved = replace(ours(), method_settings={"scale": 0.5})
    plain = replace(ours(omega=None), aim={"scaling": "shuffled"}, method_settings={"weight": 1.0})
    found = pairs(collect(written(tmp_path, control, halved, plain)))
    assert [pair.label.split()[0] for pair in found] == [*MEMBERS, "2"]


def test_our_scores_beside_the_papers(tmp_path: Path) -> None:
    results = collect(written(tmp_path, ours(), ours(omega=0.6), ours("slerp")))
    found = pairs(results)
    assert [pair.label.split()[0] for pair in found] == [*MEMBERS, "0"]
    base, merged = found[0], found[-1]
    assert all(base.difference(name) == 0 and base.within(name) for name in BENCHMARKS)
    assert merged.difference("gsm8k") == pytest.approx(0.01 - 0.461)
    assert [merged.within(name) for name in BENCHMARKS] == [True, True, None, True, False, True]
    text = printed(lambda console: print_published(console, results))
    assert "-45.1*" in text
    assert "4 of 5" in text
    assert "extra" not in text
    assert "warning" not in text


def test_another_protocol_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, ours(), ours(suite="standard"))
    assert main([str(tmp_path), "--published"]) == 1
    told = capsys.readouterr()
    assert "1: benchmarks=standard is another protocol than the paper's" in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "results.csv").exists()
    with pytest.raises(AimError, match="none of these runs"):
        pairs(collect(written(tmp_path / "failed", RunRecord(status="failed", error="no"))))


def test_another_population_is_told(tmp_path: Path) -> None:
    record = ours()
    record.population = {**record.population, "name": "mine"}
    text = printed(lambda console: print_published(console, collect(written(tmp_path, record))))
    assert "warning: the paper's population is llama2_13b, these runs also use mine" in text


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--paper"]) == 0
    assert "code+instruct+math" in capsys.readouterr().out
    assert main([str(written(tmp_path, ours())), "--published"]) == 0
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
        expected = f"{{suite: {suite}, scores: {{base: {{mmlu: 0.5}}, code: {{mbpp: 75}}}}}}"
        done = cli(
            "population=custom", f"population.base={tiny_population / 'base'}",
            f"population.experts={{code: {tiny_population / 'code'}}}", "method=none",
            f"population.expected={expected}", "benchmarks.limit=16", "tracker=none",
            f"hydra.run.dir={directory}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / directory / "result.json").read_text())["warnings"]

    differs, toy = sorted(warnings("tiny", "same"))
    assert differs.startswith("base on mmlu: ")
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
    found = source.problems()
    assert len(found) == (words is not None)
    assert words is None or words in found[0]
