"""Scores against any setting that was swept: `--x`, its figure, its tables."""

from pathlib import Path

import pytest
from records import record, shifted, write_all

from aim_exp.report.__main__ import main
from aim_exp.report.load import load
from aim_exp.report.plots.series import sweep
from aim_exp.report.rows import make_report
from aim_exp.report.tables.sweep import sweep_table

SAMPLES = (4, 16, 64, 1024)


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    runs = [
        record(f"omega={omega}", f"calibration.n_samples={n}", scores=shifted(omega / 9 + i / 99))
        for omega in (0.2, 0.6)
        for i, n in enumerate(SAMPLES)
    ]
    return write_all(tmp_path, record("omega=null"), *runs)


@pytest.mark.parametrize("name", ["n_samples", "calibration.n_samples"])
def test_x_is_any_swept_setting(name: str, samples: Path) -> None:
    assert main([str(samples), "--x", name]) == 0
    figures = {path.name for path in (samples / "figures").iterdir()}
    assert {"n_samples_average.png", "n_samples_gain.pdf"} <= figures
    text = (samples / "report.md").read_text()
    assert "## Against n\\_samples" in text or "## Against n_samples" in text
    assert "figures/n_samples_average.png" in text
    assert "figures/omega_average.png" not in text


def test_an_unknown_x_names_what_varies(samples: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(samples), "--x", "densty"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "--x densty: the runs have no such setting" in error
    assert "n_samples" in error


def test_the_table_has_every_average(samples: Path) -> None:
    report = make_report(load(samples))
    shown = sweep(report, "calibration.n_samples")
    table = sweep_table(shown)
    assert table
    assert [c.heading for c in table.columns] == ["n_samples", *map(str, SAMPLES), "without it"]
    assert len(table.rows) == 2
    for row, series in zip(table.rows, shown.series, strict=True):
        values = [each.estimates["average"].mean for each in series.rows]
        assert [cell.value for cell in row.cells[1:5]] == values
        assert len(values) == len(SAMPLES)
        assert series.level
        assert row.cells[5].value == series.level.estimates["average"].mean
    assert max(shown.axis.places.values()) == pytest.approx(3.0103, abs=1e-4), "decades: a log axis"


def test_words_have_columns_too(tmp_path: Path) -> None:
    runs = [record(f"aim.scaling={name}", scores=shifted(i / 50))
            for i, name in enumerate(("identity", "uniform", "shuffled"))]  # fmt: skip
    report = make_report(load(write_all(tmp_path, *runs)))
    table = sweep_table(sweep(report, "aim.scaling"))
    assert table
    assert [c.heading for c in table.columns[1:]] == ["identity", "uniform", "shuffled"]
