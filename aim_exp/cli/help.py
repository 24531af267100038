"""The page that `--help` prints. Hydra's own help composes and lists everything: a second more."""

from __future__ import annotations

import re
from textwrap import wrap

from aim_exp.config.folder import CONFIG_FOLDER, known_options

WIDTH = 79
"""A line fits a terminal of 80 columns."""
CONTENTS = CONFIG_FOLDER / "config.yaml"
GROUP_LINE = re.compile(r"  - (?P<name>\w+): (?P<value>\w+) +# (?P<text>.+)")
KEY_LINE = re.compile(r"(?P<name>\w+): (?P<value>\S+) +# (?P<text>.+)")
PAGE = """\
Experiments with Activation-Informed Merging of language models
Merge experts, relax the merge towards base (AIM), score, compare, log.

usage: python run.py [-m] [GROUP=OPTION] [GROUP.KEY=VALUE] [KEY=VALUE] ...

Five commands people need
  python run.py                                         the default experiment
  python run.py method=dare_ties omega=null             another merge, no AIM
  python run.py -m method=ties,dare_ties omega=0.2,0.4  a sweep; -m comes first
  python run.py -m method=ties omega=0.4 plan=true      what is still to do
  python -m aim_exp.report DIR...                       the report again

Groups: GROUP=OPTION; their keys, GROUP.KEY=VALUE: see conf/GROUP/OPTION.yaml
{groups}

Keys: KEY=VALUE, with their defaults
{keys}

Quote what holds brackets or braces: 'method.weight={{code: 0.7, math: 0.3}}'.

And also
  python run.py ... --cfg job                the whole configuration
  python run.py --hydra-help                 Hydra's own flags
  eval "$(python run.py -sc install=bash)"   tab completion
"""


def help_page() -> str:
    """The page, with the options that there are and the keys as `config.yaml` explains them."""
    return PAGE.format(groups="\n".join(_groups()), keys="\n".join(_keys()))


def _groups() -> list[str]:
    lines = []
    for group in _explained(GROUP_LINE):
        options = known_options(group["name"])
        if group["value"] in options and len(options) > 1:
            options.remove(group["value"])
            options.insert(0, f"{group['value']} (default)")
        lines += _entry(group["name"], group["text"], 15)
        lines += wrap(
            ", ".join(options), WIDTH, initial_indent=" " * 15, subsequent_indent=" " * 15
        )
    return lines


def _keys() -> list[str]:
    return [
        line
        for key in _explained(KEY_LINE)
        for line in _entry(f"{key['name']}={key['value']}", key["text"], 27)
    ]


def _explained(pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The lines of the table of contents that have the form."""
    lines = CONTENTS.read_text().splitlines()
    return [match for line in lines if (match := pattern.fullmatch(line))]


def _entry(name: str, text: str, column: int) -> list[str]:
    """`name`, and what it is from `column` on."""
    start = f"  {name}".ljust(column)
    return wrap(start + text, WIDTH, subsequent_indent=" " * column, break_on_hyphens=False)
