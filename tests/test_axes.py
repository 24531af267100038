"""Axes of sweeps: which experts are merged, and each option with settings of its own."""

from itertools import combinations
from pathlib import Path

import pytest
from conftest import Cli
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from run_records import result

from aim_exp.cli.explain import first_lines
from aim_exp.config import axes, schema
from aim_exp.config.schema import CONFIG_FOLDER

NAMES = ("a", "b", "c", "d", "e")
PAIRS = ["[code,instruct]", "[code,math]", "[instruct,math]"]


def test_subsets_are_all_or_a_few_of_each_size() -> None:
    subsets_of = axes.subsets_of
    assert subsets_of(NAMES, "2", 0, "0") == [*combinations(NAMES, 2)]
    some = subsets_of(NAMES, "2..4", 3, "0")
    assert [len(each) for each in some] == [2] * 3 + [3] * 3 + [4] * 3
    assert len(set(some)) == 9
    assert all(each == tuple(sorted(each)) for each in some)
    assert subsets_of(NAMES, "2..4", 3, "0") == some != subsets_of(NAMES, "2..4", 3, "1")
    assert subsets_of(NAMES, "5", 3, "0") == [NAMES]
    assert subsets_of(NAMES, "6", 0, "0") == []


def test_a_sweep_has_a_job_for_each() -> None:
    def merged(method: str, value: str) -> list[str]:
        parsed = OverridesParser.create().parse_overrides(
            [f"method={method}", f"population.merge={value}", "omega=null,0.4"]
        )
        batches = BasicSweeper.split_arguments(parsed, 3)
        assert all(len(batch) <= 3 for batch in batches)
        jobs = [job for batch in batches for job in batch]
        return [job[1].removeprefix("population.merge=") for job in jobs if job[2] == "omega=null"]

    schema.register()
    axes.teach(BasicSweeper)
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        assert merged("ties", "subsets()") == ["null"]
        assert merged("slerp", "subsets()") == PAIRS
        assert merged("slerp,ties", "subsets()") == [*PAIRS, "null"]
        assert merged("linear", "subsets(k=2..3)") == [*PAIRS, "null"]
        assert len(merged("linear", "subsets(k=1..2, n=2, seed=1)")) == 4
        assert merged("linear", "[code],[math]") == ["[code]", "[math]"]
        # What cannot be drawn is left to the job, which tells so.
        assert merged("linear", "subsets(k=4)") == ["'subsets(k=4,n=0,seed=0)'"]


def test_each_option_has_settings_of_its_own() -> None:
    def jobs(*overrides: str) -> list[list[str]]:
        parsed = OverridesParser.create().parse_overrides([*overrides])
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        return jobs

    schema.register()
    axes.teach(BasicSweeper)
    grid = (
        "method=grid({ties: {density: [0.1, 0.2], scale: [1, 2], trim_scope: model}, linear: {}})"
    )
    assert jobs(grid, "omega=null,0.4") == [
        *(
            ["method=ties", f"method.density={density}", f"method.scale={scale}",
             "method.trim_scope=model", f"omega={omega}"]
            for density in (0.1, 0.2) for scale in (1, 2) for omega in ("null", 0.4)
        ),
        *(["method=linear", f"omega={omega}"] for omega in ("null", 0.4)),
    ]  # fmt: skip
    # What has quotes, brackets and commas arrives as it was written.
    odd = "method=grid({ties: {weight: {code: 0.7}, x: ['it\\'s, {a}', [1, 2], null]}})"
    values = [job[2].removeprefix("method.x=") for job in jobs(odd)]
    assert values == ["'it\\'s, {a}'", "[1,2]", "null"]
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        both = jobs(
            "method=grid({slerp: {t: [0.3, 0.5]}, linear: {}})", "population.merge=subsets()"
        )
    assert [job[-1].removeprefix("population.merge=") for job in both] == [*PAIRS, *PAIRS, "null"]
    for wrong, words in (
        ("grid({ties: 0.1})", "ties: must be {setting: [value, ...], ...}"),
        ("grid(ties)", "mismatch type argument options: str is incompatible with dict"),
    ):
        with pytest.raises(OverrideParseException) as refused:
            jobs(f"method={wrong}")
        assert first_lines(refused.value) == f"method={wrong}: {words}"


def test_it_runs(cli: Cli, tmp_path: Path) -> None:
    common = ("omega=null", "benchmarks=none", "tracker=none")
    done = cli(
        "-m", "method=slerp", "population.merge=subsets(n=2,seed=1)", *common, "hydra.sweep.dir=s"
    )
    assert done.returncode == 0, done.stderr
    merged = [result(tmp_path / "s" / job)["population"]["merged"] for job in "01"]
    names = ["code", "instruct", "math"]
    assert [*map(tuple, merged)] == axes.subsets_of(names, "2", 2, "1")
    done = cli("population.merge=subsets(k=2)", *common)
    assert "must be a list of experts, of code, instruct, math" in done.stderr
