"""Every number of docs/study.md, worked out again from what is kept: `make check-study`."""

import yaml
from conftest import ROOT

from aim_exp.store.study_lock import read_lock
from aim_exp.study.findings import chosen, findings
from aim_exp.study.replicates import kept_replicates

FOLDER = ROOT / "docs" / "study"
PAGE = ROOT / "docs" / "study.md"
DEVELOPMENT = FOLDER / "development.lock"
CHOSEN = "_chosen"


def test_the_page_has_the_numbers_as_they_are() -> None:
    page = PAGE.read_text()
    for lock in sorted(FOLDER.glob("*.lock")):
        if kept_replicates(lock):  # else it was locked, and nothing run yet
            text = findings(lock)
            print(f"\n{text}")
            assert [part for part in text.split("\n\n") if part not in page] == []


def test_what_is_called_chosen_did_best_on_development() -> None:
    arms = yaml.safe_load((FOLDER / "smollm2.yaml").read_text())["arms"]
    called = {arm.removesuffix(CHOSEN): own for arm, own in arms.items() if arm.endswith(CHOSEN)}
    if not DEVELOPMENT.exists():
        assert set(called.values()) == {"???"}
        return
    locked = read_lock(DEVELOPMENT)
    best = chosen(locked, kept_replicates(DEVELOPMENT))
    settings = locked.design["arms"]
    assert called == {kind: [settings[arm] for arm in best[kind]] for kind in called}
