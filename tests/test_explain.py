"""Errors of Hydra's, told in a line that names the key, the value and the fix."""

import pytest
from hydra import compose, initialize_config_dir

from aim_exp.app import CONFIG_FOLDER, _put_multirun_first
from aim_exp.explain import first_lines


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.densty=0.3", "method.densty: there is no such key; did you mean density?"),
        ("method=tis", "method=tis: no such option; did you mean ties?; there are authors/dare_li"),
        ("tracker=x", "tracker=x: no such option; there are none, wandb"),
        ("method=ties,dare_ties", "that takes -m: python run.py -m method=ties,dare_ties"),
        ("method.weight={code:", "in quotes what holds brackets, braces or blanks: 'KEY={a: 1"),
        ("x", "in quotes what holds"),
    ],
)
def test_an_override_that_hydra_refuses(override: str, words: str) -> None:
    with (
        initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"),
        pytest.raises(Exception, match=r"\w") as refused,
    ):
        compose("config", [override])
    told = first_lines(refused.value)
    assert words in told
    assert "\n" not in told


def test_the_sweeps_flag_may_stand_anywhere() -> None:
    arguments = ["run.py", "method=ties", "-m", "omega=null,0.4"]
    _put_multirun_first(arguments)
    assert arguments == ["run.py", "-m", "method=ties", "omega=null,0.4"]
    _put_multirun_first(arguments)
    assert arguments[1] == "-m"
