"""Every number of docs/study.md, worked out again from what is kept: `make check-study`."""

import yaml
from conftest import ROOT

from aim_exp.store.study_lock import read_lock
from aim_exp.study.findings import chosen, findings
from aim_exp.study.replicates import kept_replicates

FOLDER = ROOT / "docs" / "study"
PAGE = ROOT / "docs" / "study.md"
DEVELOPMENT = "_development"
CHOSEN = "_chosen"


def test_the_page_has_the_numbers_as_they_are() -> None:
    page = PAGE.read_text()
    kept = [lock for lock in sorted(FOLDER.glob("*.lock")) if kept_replicates(lock)]
    for lock in kept:
        text = findings(lock)
        print(f"\n{lock.stem}\n\n{text}")
        assert [part for part in text.split("\n\n") if part not in page] == []
    assert len(kept) == 5


def test_what_is_called_chosen_did_best_on_development() -> None:
    developments = sorted(FOLDER.glob(f"*{DEVELOPMENT}.lock"))
    for lock in developments:
        study = lock.with_name(f"{lock.stem.removesuffix(DEVELOPMENT)}.yaml")
        arms = yaml.safe_load(study.read_text())["arms"]
        called = {a.removesuffix(CHOSEN): own for a, own in arms.items() if a.endswith(CHOSEN)}
        best = chosen(read_lock(lock), kept_replicates(lock))
        settings = read_lock(lock).design["arms"]
        assert called == {kind: [settings[arm] for arm in best[kind]] for kind in called}
    assert len(developments) == 2
