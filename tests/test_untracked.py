"""Differences to a plain merge that is scored later: which runs are completed, and with what."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from records import BENCHMARKS, failed, record, shifted, write_all

from aim_exp.records import find_records
from aim_exp.report.tracked import job_outcome
from aim_exp.report.untracked import FILE_NAME, Untracked, note_untracked, track_untracked
from aim_exp.tracking import Outcome, RunInfo


class ListTracker:
    """A tracker of one's own: keeps what it is told."""

    told: ClassVar[list[RunInfo | Outcome]] = []

    def problems(self) -> list[str]:
        return []

    def start(self, run: RunInfo) -> None:
        self.told.append(run)

    def finish(self, outcome: Outcome) -> None:
        self.told.append(outcome)


CONFIG = {"settings": {"tracker": {"_target_": f"{__name__}.ListTracker"}}, "omega": 0.4}


@pytest.fixture
def told() -> list[Any]:
    ListTracker.told.clear()
    return ListTracker.told


def sweep_so_far(directory: Path, *records: Any) -> list[bool]:
    """Write the records job by job, as a sweep does; whether each left a note."""
    write_all(directory, *records)
    every = find_records(directory)
    noted = []
    for number, (job, found) in enumerate(every):
        outcome = job_outcome(found, job, sweep=every[: number + 1])
        note_untracked(untracked(job), found, outcome)
        noted.append((job / FILE_NAME).exists())
    return noted


def untracked(job: Path) -> Untracked:
    run = RunInfo(id=f"id{job.name}", name=f"job {job.name}", directory=job, config=CONFIG,
                  group="sweep", tags=("ties", "mine"))  # fmt: skip
    return Untracked(run=run, figure=job / "front.png", model=None)


def test_those_that_lack_their_plain_merge_are_completed_at_the_end(tmp_path, told):
    noted = sweep_so_far(
        tmp_path,
        record("ties", 0.2, shifted(0.02)),
        record("ties", None),
        record("ties", 0.4, shifted(0.01)),
        record("linear", 0.4),
        failed(),
    )
    assert noted == [True, False, False, True, False]
    track_untracked(tmp_path)
    run, outcome = told
    job = tmp_path / "0"
    assert run == untracked(job).run
    assert outcome.metrics["change/average"] == pytest.approx(0.02)
    assert outcome.metrics["average"] == find_records(job)[0][1].average
    assert outcome.figures == {"pareto_front": job / "front.png"}
    assert set(outcome.tables) == {"scores", "population"}
    assert not list(tmp_path.rglob(FILE_NAME))


def test_nothing_is_tracked_twice(tmp_path, told):
    sweep_so_far(tmp_path, record("ties", 0.4), record("ties", None))
    track_untracked(tmp_path)
    track_untracked(tmp_path)
    assert [type(each) for each in told] == [RunInfo, Outcome]


def test_omega_1_is_the_plain_merge(tmp_path, told):
    """Whether that was scored or not, and whenever."""
    assert sweep_so_far(tmp_path, record("ties", 1.0), record("ties", 0.4)) == [False, True]
    ((job, found),) = find_records(tmp_path / "0")
    changes = {
        name: value
        for name, value in job_outcome(found, job).metrics.items()
        if name.startswith("change/")
    }
    assert changes == dict.fromkeys(
        [f"change/{name}" for name in ("average", "hypervolume_gain", *BENCHMARKS)], 0.0
    )
    track_untracked(tmp_path)
    assert told == []


def test_a_job_run_again_has_the_last_word(tmp_path, told):
    """It found its plain merge, or it failed, and an earlier attempt's note is still there."""
    relaxed, plain = record("ties", 0.4), record("ties", None)
    sweep_so_far(tmp_path, relaxed, replace(relaxed, omega=0.2), plain)
    every = find_records(tmp_path)
    for job, found in every[:2]:
        assert (job / FILE_NAME).exists()
        note_untracked(untracked(job), found, job_outcome(found, job))
    first = tmp_path / "0"
    note_untracked(untracked(first), relaxed, job_outcome(relaxed, first, sweep=every))
    assert not (first / FILE_NAME).exists()
    replace(relaxed, omega=0.2, status="failed", error="no memory").write(tmp_path / "1")
    track_untracked(tmp_path)
    assert told == []
    assert not list(tmp_path.rglob(FILE_NAME))


def test_processes_may_end_at_once(tmp_path, told):
    """Each completes the runs whose notes it took: none is tracked twice, and none is missed."""
    sweep_so_far(tmp_path, *(record("ties", n / 50, shifted(n / 100)) for n in range(1, 20)),
                 record("ties", None))  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(track_untracked, tmp_path) for _ in range(4)]:
            done.result()
    runs = [each.id for each in told if isinstance(each, RunInfo)]
    assert sorted(runs) == sorted(f"id{n}" for n in range(19))


def test_a_note_is_plain_json(tmp_path):
    sweep_so_far(tmp_path, record("ties", 0.4))
    note = json.loads((tmp_path / "0" / FILE_NAME).read_text())
    assert note["run"]["config"] == CONFIG
    assert note["figure"] == str(tmp_path / "0" / "front.png")
