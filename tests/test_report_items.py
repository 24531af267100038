"""Items side by side: on the page, whose side files are scripts, and on a terminal."""

import base64
import gzip
import json
import re
from pathlib import Path

import pytest
from pages import Page, page_of
from records import accuracies, record, write_all

from aim_exp.report import refresh
from aim_exp.report.__main__ import main
from aim_exp.report.answers import changed_first, read_answers
from aim_exp.report.load import load
from aim_exp.store.run_record import RunRecord

ONE = "benchmarks.tasks={x: {task: t, metric: 'm,none'}}"
MEMBERS = {"base": [accuracies(0.3, 40)], "a": [accuracies(0.5, 40, 1)]}
BEFORE, AFTER = accuracies(0.4, 40, 2), accuracies(0.6, 40, 3)
DIFFERING = [i for i in range(40) if BEFORE[i] != AFTER[i]]
HOSTILE = '</script><img src=x onerror="alert(1)">");'


def pair() -> list[RunRecord]:
    return [
        record(ONE, f"omega={omega}", scores=[answers], members=MEMBERS)
        for omega, answers in (("null", BEFORE), ("0.4", AFTER))
    ]


def side_file(folder: Path, name: str) -> dict:
    called = re.fullmatch(
        r'answers\("(\w+)", "([A-Za-z0-9+/=]+)"\);\n', (folder / f"{name}.js").read_text()
    )
    assert called
    assert called[1] == name
    return json.loads(gzip.decompress(base64.b64decode(called[2])))


def rewrite(file: Path, **fields) -> None:
    lines = [json.loads(line) | fields for line in gzip.decompress(file.read_bytes()).splitlines()]
    file.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def test_side_files_hold_every_answer(tmp_path: Path) -> None:
    """A file per model and benchmark, and one of the questions that all share."""
    write_all(tmp_path, *pair())
    rewrite(tmp_path / "1" / "items" / "x.jsonl.gz", text=HOSTILE)
    refresh(tmp_path)
    page = page_of(tmp_path)
    models = page.data["items"]["models"]
    assert [each["label"] for each in models] == [
        "base", "a", "ties omega=null", "ties omega=0.4",
    ]  # fmt: skip
    folder = tmp_path / page.data["items"]["folder"]
    files = [side_file(folder, *each["files"]) for each in models]
    assert [[given["score"] for given in each["given"]] for each in files] == [
        *(row[0] for row in MEMBERS.values()),
        BEFORE,
        AFTER,
    ]
    (name,) = {each["questions"] for each in files}
    questions = side_file(folder, name)
    assert len(list(folder.iterdir())) == 5
    assert [each["target"] for each in questions] == [f"answer {i}" for i in range(40)]
    assert [given["text"] for given in files[3]["given"]] == [HOSTILE] * 40
    assert HOSTILE not in (tmp_path / "report.html").read_text()
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    refresh(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times, "each once"


def test_every_difference_leads_to_its_items(tmp_path: Path) -> None:
    page = page_of(write_all(tmp_path, *pair()))
    links = [a["href"] for a in page.named("a") if (a["href"] or "").startswith("#items=")]
    models = [each["key"] for each in page.data["items"]["models"]]
    base, _, plain, relaxed = models
    against_plain = f"#items=x&a={plain}&b={relaxed}"
    assert links.count(against_plain) == 3, "the average, the gain and the benchmark"
    assert links.count(f"#items=x&a={base}&b={relaxed}") == 2


def test_a_page_without_items_has_no_links_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("records.ITEMS", {})
    page = page_of(write_all(tmp_path, record("omega=null"), record("omega=0.4")))
    assert page.data["items"] is None
    assert "items" not in page.ids
    assert not [a for a in page.named("a") if (a["href"] or "").startswith("#items")]


def test_what_changed_stands_first(tmp_path: Path) -> None:
    runs = load(write_all(tmp_path, *pair()))
    before, after = (read_answers(job.sources["merged"]["x"]) for job in runs.jobs)
    order = changed_first(before, after)
    assert sorted(order[: len(DIFFERING)]) == DIFFERING
    assert sorted(order) == list(range(40))


def test_the_own_part_of_a_prompt_begins_after_what_all_share(tmp_path: Path) -> None:
    write_all(tmp_path, *pair())
    file = tmp_path / "1" / "items" / "x.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    for number, line in enumerate(lines):
        line["prompt"] = f"Q: shot\nA: yes\n\nQ: question {number}\nA:"
    file.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    job = load(tmp_path).jobs[1]
    questions = read_answers(job.sources["merged"]["x"]).questions
    own = [each.prompt[each.start :] for each in questions]
    assert own == [f"Q: question {number}\nA:" for number in range(40)]


@pytest.mark.parametrize("names", [("0", "1"), ("ties omega=null", "ties omega=0.4")])
def test_items_on_a_terminal(names: tuple[str, str], tmp_path: Path, capsys) -> None:
    write_all(tmp_path, *pair())
    command = [str(tmp_path), "--items", *names, "--benchmark", "x", "--changed"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    numbers = [int(number) for number in re.findall(r"^question (\d+)", shown, re.MULTILINE)]
    assert sorted(numbers) == DIFFERING
    up = sum(AFTER[i] > BEFORE[i] for i in range(40))
    assert f"40 items: {up} better, {len(DIFFERING) - up} worse" in shown
    assert not (tmp_path / "report.md").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--items", "bse", "1"], "--items bse: no model is called so; names are as in: base, a, "),
        (
            ["--items", "base", "1", "--benchmark", "y"],
            "--benchmark y: not scored for both; there are: x",
        ),
    ],
)
def test_names_that_are_none(arguments: list[str], error: str, tmp_path: Path, capsys) -> None:
    write_all(tmp_path, *pair())
    assert main([str(tmp_path), *arguments]) == 1
    assert error in " ".join(capsys.readouterr().err.split())


def test_a_bundle_is_all_that_a_host_needs(tmp_path: Path) -> None:
    """The page, and every file that it may load, nothing outside the folder."""
    sweep = write_all(tmp_path / "sweep", *pair())
    before = sorted(path.name for path in sweep.iterdir())
    site = tmp_path / "site"
    assert main([str(sweep), "--bundle", str(site)]) == 0
    assert sorted(path.name for path in sweep.iterdir()) == before
    text = (site / "index.html").read_text()
    assert not (site / "report.html").exists()
    assert str(tmp_path) not in text
    data = Page(text).data
    files = {name for each in data["items"]["models"] for name in each["files"]}
    assert {f"{name}.js" for name in files} <= {p.name for p in (site / "report_items").iterdir()}


def test_a_page_reloads_itself_while_its_sweep_runs(tmp_path: Path) -> None:
    write_all(tmp_path, *pair(), asked_for=3)
    refresh(tmp_path, running=True)
    running = Page((tmp_path / "report.html").read_text())
    assert running.named("meta", **{"http-equiv": "refresh", "content": "30"})
    assert "This sweep is running" in running.text
    assert not list(tmp_path.rglob("*.pdf"))
    assert ".pdf" not in (tmp_path / "report.md").read_text()
    refresh(tmp_path)
    assert {path.stem for path in tmp_path.rglob("*.pdf")} == {
        path.stem for path in tmp_path.rglob("*.png")
    }
    assert ".pdf" in (tmp_path / "report.md").read_text()
    ended = Page((tmp_path / "report.html").read_text())
    assert not ended.named("meta", **{"http-equiv": "refresh"})
