"""Relaxations in a report: three doses, merges that omega plays no part in, deltas, saliency."""

import csv
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import pytest
from pages import page_of
from records import printed, record, shifted, write_all

from aim_exp.report import refresh, show_run
from aim_exp.report.load import load
from aim_exp.report.notes import notes
from aim_exp.report.plots.series import sweep
from aim_exp.report.rows import Report, make_report
from aim_exp.report.summary import job_line
from aim_exp.report.tables.changes import dose_table
from aim_exp.store.run_record import Dose, RunRecord

DOSE = {
    "all": Dose(
        parameters=9, relaxed_parameters=9, mean_r=0.71, norm=0.62, outputs=0.53, differing=0.9
    ),
    "q_proj": Dose(parameters=3, relaxed_parameters=3, mean_r=0.81, norm=0.72, outputs=0.63),
}
LAYERS = {
    number: Dose(parameters=2, relaxed_parameters=2, mean_r=0.9, norm=norm, outputs=norm / 2)
    for number, norm in ((0, 0.83), (1, 0.41))
}
RIVALS = ("lines", "svc")
DELTAS = {
    kind: {
        "relative": {"code": 0.125, "math": 0.25},
        "cosine": {"code math": shift},
        "sign_agreement": {"code math": None},
    }
    for kind, shift in (("all", 0.375), ("q_proj", -0.0625))
}


def runs() -> list[RunRecord]:
    rivals = [record(f"aim.scaling={name}", scores=shifted(0.01 * i), dose=DOSE,
                     dose_by_layer=LAYERS)
              for i, name in enumerate(RIVALS, 1)]  # fmt: skip
    solved = record("aim.dose=norm:0.5", scores=shifted(0.05), omega=0.371, dose=DOSE)
    return [record("omega=null"), record("omega=0.6", scores=shifted(-0.02)), *rivals, solved]


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return make_report(load(write_all(tmp_path, *runs())))


def test_no_relaxed_merge_is_called_plain(report: Report) -> None:
    (group,) = report.groups
    known = [(row.omega, row.relaxed, row.settings.get("omega")) for row in group.merges]
    assert known == [
        (1.0, False, "null"),
        (0.6, True, "0.6"),
        *[(None, True, None)] * len(RIVALS),
        (0.371, True, "0.371"),
    ]
    plain, *relaxed = group.merges
    assert {row.plain for row in relaxed} == {plain.key}
    assert not any("omega=null" in row.label for row in relaxed)
    assert all(
        f"scaling={name}" in row.label for name, row in zip(RIVALS, relaxed[1:], strict=False)
    )
    levels = {each.level.label: each.level_place for each in sweep(report).series if each.level}
    assert [levels[row.label] for row in relaxed[1:3]] == [None, None]
    assert sum(place is not None for place in levels.values()) >= 1, "the plain merge has its place"


def test_results_leave_omega_empty_where_it_plays_no_part(report: Report, tmp_path: Path) -> None:
    refresh(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = [(row["omega"], row["relaxed"]) for row in csv.DictReader(file)]
    assert rows == [
        ("1.0", "False"), ("0.6", "True"), ("", "True"), ("", "True"), ("0.371", "True"),
    ]  # fmt: skip


def test_a_line_of_a_job_names_its_relaxation() -> None:
    lines = [job_line(each).partition(",")[0] for each in runs()]
    assert lines == [
        "ties omega=null", "ties omega=0.6", "ties lines", "ties svc", "ties omega=0.371",
    ]  # fmt: skip


def test_the_three_doses_are_shown(tmp_path: Path) -> None:
    run = write_all(tmp_path / "one", runs()[2]) / "0"
    shown = printed(lambda to: show_run(run, to=to))
    assert "lines  " in shown
    assert "mean r 0.710, norm 0.620, outputs 0.530 of the merge's change left" in shown
    refresh(run)
    text = (run / "report.md").read_text()
    section = text.split("## What the relaxation left")[1].split("\n## ")[0]
    cells = {line.split("|")[1].strip(): line.split("|")[2:5] for line in section.splitlines()
             if line.startswith("| ")}  # fmt: skip
    assert [cell.strip() for cell in cells["q_proj"]] == ["0.810", "0.720", "0.630"]
    page = page_of(run)
    assert [p["outputs"] for p in page.data["dose"]["profiles"]] == [{"all": 0.53, "q_proj": 0.63}]
    assert "0.530" in page.text
    assert [cell.strip() for cell in cells["layer 1"]] == ["0.900", "0.410", "0.205"]
    (profile,) = page.data["dose"]["profiles"]
    assert profile["kept_by_layer"] == {"0": 0.83, "1": 0.41}
    assert page.data["dose"]["has_layers"]
    assert "(figures/delta_kept_by_layer.png)" in text
    assert (run / "figures" / "delta_kept_by_layer.pdf").exists()


def test_the_doses_of_a_random_method_have_their_spread(tmp_path: Path) -> None:
    masks = [
        record("method=dare_ties", f"seed={seed}", scores=shifted(shift),
               dose={"all": replace(DOSE["all"], mean_r=mean_r)})
        for seed, shift, mean_r in ((0, 0.0, 0.7), (1, 0.1, 0.8))
    ]  # fmt: skip
    table = dose_table(make_report(load(write_all(tmp_path, *masks))))
    assert table
    (_, mean_r, norm, *_), *_ = (row.cells for row in table.rows)
    assert (mean_r.value, mean_r.margin) == pytest.approx((0.75, stdev([0.7, 0.8])))
    assert (norm.text, norm.margin) == ("0.620", 0.0)
    assert "standard deviation over draws" in table.sentences


def test_deltas_are_shown_where_nothing_is_scored(tmp_path: Path) -> None:
    run = write_all(tmp_path, record("benchmarks=none", scores=None, deltas=DELTAS)) / "0"
    refresh(run)
    texts = (printed(lambda to: show_run(run, to=to)), (run / "report.md").read_text())
    for text in (*texts, page_of(run).text):
        for number in ("0.125", "0.250", "0.375", "-0.062"):
            assert number in text, number


def test_a_saliency_that_is_gone_is_one_line(tmp_path: Path) -> None:
    path = "../shared/saliency/abc.safetensors"
    write_all(tmp_path, record(saliency=path), record("omega=0.2", saliency=path))
    lines = [n for n in notes(make_report(load(tmp_path))) if "saliency" in n and "gone" in n]
    assert len(lines) == 1
    assert "shared/saliency/abc.safetensors" in lines[0]
