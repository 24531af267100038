"""The page that `--help` prints. Hydra's own help composes and lists everything: a second more."""

from __future__ import annotations

from dataclasses import fields
from textwrap import wrap

from aim_exp.schema import CONFIG_FOLDER, OPTIONS, RunConfig

PAGE = """\
Experiments with Activation-Informed Merging of language models

Merge experts, relax the merge towards base (AIM), score, compare, log.

Five commands people need
  python run.py                                          the default experiment
  python run.py method=dare_ties omega=null              another merge, without AIM
  python run.py -m method=ties,dare_ties omega=0.2,0.4   a sweep; -m comes first
  python run.py -m method=ties omega=0.4 plan=true       what would run, what is cached
  python -m aim_exp.report DIR...                        tables and figures again

Groups: GROUP=OPTION
  {options}

Keys: KEY=VALUE
  {keys}

A group's keys stand in conf/GROUP/OPTION.yaml, with a word on each: GROUP.KEY=VALUE.
In quotes what holds brackets or braces: 'method.weight={{code: 0.7, math: 0.3}}'.
--cfg job prints the whole configuration of a command, --hydra-help explains Hydra's flags.
"""


def help_page() -> str:
    """The page, with the options that there are and the keys as `config.yaml` explains them."""
    return PAGE.format(options="\n  ".join(_options()), keys="\n  ".join(_keys()))


def _options() -> list[str]:
    groups = sorted({option.split("/")[0] for option in OPTIONS} | {"benchmarks", "experiment"})
    lines = []
    for group in groups:
        folder = CONFIG_FOLDER / group
        files = sorted(folder.rglob("*.yaml"))
        names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
        lines += wrap(f"{group:<12} {', '.join(names)}", 78, subsequent_indent=" " * 13)
    return lines


def _keys() -> list[str]:
    keys = tuple(f"{field.name}:" for field in fields(RunConfig))
    lines = (CONFIG_FOLDER / "config.yaml").read_text().splitlines()
    return [line for line in lines if line.startswith(keys)]
