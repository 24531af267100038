"""Every number of docs/study.md, worked out again from what is kept: `make check-study`."""

from pathlib import Path

import pytest
from conftest import ROOT

from aim_exp.store.study_lock import read_lock
from aim_exp.study.design import read_design
from aim_exp.study.findings import chosen, findings
from aim_exp.study.replicates import kept_replicates

FOLDER = ROOT / "docs" / "study"
PAGE = ROOT / "docs" / "study.md"
CHOSEN = "_chosen"


@pytest.mark.parametrize("lock", sorted(FOLDER.glob("*.lock")), ids=lambda path: path.stem)
def test_the_page_has_the_numbers_as_they_are(lock: Path) -> None:
    if not kept_replicates(lock):
        return  # locked, and nothing run yet
    text = findings(lock)
    print(f"\n{text}")
    page = PAGE.read_text()
    for part in text.split("\n\n"):
        assert part in page


def test_what_is_called_chosen_did_best_on_development() -> None:
    development = FOLDER / "development.lock"
    locked = read_lock(development)
    arms, best = locked.design["arms"], chosen(locked, kept_replicates(development))
    study, _ = read_design(FOLDER / "smollm2.yaml")
    for arm, own in study.arms.items():
        if arm.endswith(CHOSEN):
            assert own == [arms[each] for each in best[arm.removesuffix(CHOSEN)]]
