"""Errors of Hydra's, told in a line that names the key, the value and the fix."""

import shutil
from pathlib import Path

import pytest
from conftest import Cli
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError

from aim_exp.app import CONFIG_FOLDER, _put_multirun_first
from aim_exp.cli.explain import first_lines
from aim_exp.config.schema_errors import unknown_keys


def composed(*overrides: str, folder: Path = CONFIG_FOLDER) -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("config", [*overrides])


def refusal(overrides: str, folder: Path = CONFIG_FOLDER) -> str:
    with pytest.raises(Exception, match=r"\w") as refused:
        composed(*overrides.split(), folder=folder)
    return first_lines(refused.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("method=tis", "method=tis: no such option; did you mean ties?; there are authors/dare_li"),
        ("tracker=x", "tracker=x: no such option; there are mlflow, none, wandb"),
        ("method=ties,dare_ties", "that takes -m: python run.py -m method=ties,dare_ties"),
        ("method.weight={code:", "in quotes what holds brackets, braces or blanks: 'KEY={a: 1"),
        (
            "population.merge=[code,math",
            "population.merge=[code,math: [ is not closed by ]; in quo",
        ),
        ("method.weight={code:1}}", "method.weight={code:1}}: } closes no {"),
        (
            "omega = 0.4",
            "omega: no = in it, or blanks around that; write KEY=VALUE, in quotes what",
        ),
        ("x", "x: no = in it"),
        ("+omega=0.3", "+omega: + is for keys that are new, and it has a value; write omega=..."),
        ("hydra.mode=x", "hydra.mode=x: Invalid value 'x', expected one of [RUN, MULTIRUN]"),
    ],
)
def test_an_override_that_hydra_refuses(overrides: str, words: str) -> None:
    line = refusal(overrides)
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("override", "kind"),
    [
        ("omega=abc", "a number or null"),
        ("++omega=abc", "a number or null"),
        ("omega=[1]", "a number or null"),
        ("seed=null", "an integer"),
        ("threads=many", "an integer or null"),
        ("plan=maybe", "true or false"),
        ("cache_dir=[a]", "text"),
        ("method.scale=x", "a number"),
        ("tracker.tags=x", "a list"),
    ],
)
def test_a_value_of_another_type(override: str, kind: str) -> None:
    assert refusal(override) == f"{override.lstrip('+')}: must be {kind}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("omga=1", "omga: there is no such key; did you mean omega?"),
        ("foo=1", "foo: there is no such key; see --help"),
        ("density=1", "density: there is no such key; did you mean method.density?"),
        ("method.densty=1", "method.densty: there is no such key; did you mean method.density?"),
        ("population.seeed=1",
         "population.seeed: there is no such key; did you mean population.seed?"),
        ("calibration.nsamples=1",
         "calibration.nsamples: there is no such key; did you mean calibration.n_samples?"),
        ("method=task_arithmetic method.density=0.3",
         "method.density: method=task_arithmetic has no such key; it has weight, scale"),
        ("evaluator=hf evaluator.model_args=1",
         "evaluator.model_args: evaluator=hf has no such key; it has batch_size, max_length"),
        ("method=none method.scale=1",
         "method.scale: method=none has no such key; it has none"),
        ("aim.omega=1", "aim.omega: there is no such key; did you mean aim.omega_by?"),
        ("aim.channel=1",
         "aim.channel: aim has no such key; it has statistic, column_norm, saliency, normalise, "
         "scaling, dose, exclude, tied_head, omega_by"),
    ],
)  # fmt: skip
def test_an_unknown_key(overrides: str, words: str) -> None:
    """The same words whether Hydra finds it or, where it was added with +, the checks do."""
    *choices, override = overrides.split()
    assert refusal(overrides) == words
    assert unknown_keys(composed(*choices, f"+{override}")) == [words]


def test_a_table_without_a_schema_takes_any_key() -> None:
    line = refusal("benchmarks.tasks.own=1")
    assert line == "benchmarks.tasks.own: there is no such key; +benchmarks.tasks.own=... adds it"
    assert "did you mean benchmarks.tasks.tiny_math?" in refusal("benchmarks.tasks.tiny_maths=1")
    added = ("+benchmarks.tasks.own=gsm8k", "+population.experts.a=DIR",
             "~benchmarks.tasks.tiny_mbpp", "evaluator=hf_process",
             "+evaluator.model_args.x=1", "population=custom")  # fmt: skip
    assert unknown_keys(composed(*added)) == []


def test_a_key_that_was_removed() -> None:
    config = composed("~omega")
    with pytest.raises(ConfigAttributeError) as refused:
        _ = config.omega
    assert first_lines(refused.value) == "omega: has no value; set omega=..."


def test_mistakes_in_files_name_the_file(tmp_path: Path) -> None:
    shutil.copytree(CONFIG_FOLDER, tmp_path / "conf")
    study = tmp_path / "conf" / "experiment" / "mine.yaml"
    for text, words in {
        "method: {densty: 1}": "method.densty: there is no such key; did you mean method.density?",
        "omega: abc": "omega=abc: must be a number or null",
        "select: {on: populations}": "select.True: a bare on, off, yes or no is true or false to "
        "YAML; write it in quotes",
    }.items():
        study.write_text(f"# @package _global_\n{text}\n")
        line = refusal("experiment=mine", folder=tmp_path / "conf")
        assert line == f"conf/experiment/mine.yaml: {words}"
    (tmp_path / "conf" / "method" / "mine.yaml").write_text(
        "defaults: [/schema/method/mine@_here_, _self_]\n"
    )
    line = refusal("method=mine", folder=tmp_path / "conf")
    assert (
        line == "method/mine: no class for it; name it under METHODS in aim_exp/merge/__init__.py"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cfg", "job", "-m"), "Only one of --run, --multirun, --cfg,"),
        (("-m", "hydra.sweeper.params={omega:[0.2,0.4]}"), "(debug=true shows the traceback)"),
        (("omega=interval(0,1)",), "that takes -m: python run.py -m omega=interval(0,1)"),
        (("-m", "omega=interval(0,1)"), "for a sweeper that searches, which hydra/sweeper=... ch"),
        (("-m", "method=glob(zzz*)"), "the sweep has no job: glob(...) matches no option"),
    ],
)
def test_what_hydra_does_not_expect_is_one_line_too(
    arguments: tuple[str, ...], words: str, cli: Cli
) -> None:
    done = cli(*arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line


def test_the_sweeps_flag_may_stand_anywhere() -> None:
    arguments = ["run.py", "method=ties", "-m", "omega=null,0.4"]
    _put_multirun_first(arguments)
    assert arguments == ["run.py", "-m", "method=ties", "omega=null,0.4"]
    _put_multirun_first(arguments)
    assert arguments[1] == "-m"
