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
    assert len(kept) == 9


def test_what_is_called_chosen_did_best_on_development() -> None:
    """On its own development, or that of the study that it goes on from."""
    best: dict[str, dict[str, list[list[str]]]] = {}
    for lock in sorted(FOLDER.glob(f"*{DEVELOPMENT}.lock")):
        settings = read_lock(lock).design["arms"]
        arms = chosen(read_lock(lock), kept_replicates(lock))
        best[lock.stem.removesuffix(DEVELOPMENT)] = {
            kind: [settings[arm] for arm in own] for kind, own in arms.items()
        }
    n_chosen = 0
    for study in FOLDER.glob("*.yaml"):
        of = [kinds for name, kinds in best.items() if study.stem.startswith(name)]
        known = {kind: own for kinds in of for kind, own in kinds.items()}
        for arm, settings in yaml.safe_load(study.read_text())["arms"].items():
            if arm.endswith(CHOSEN):
                assert settings == known[arm.removesuffix(CHOSEN)]
                n_chosen += 1
    assert (len(best), n_chosen) == (3, 12)
