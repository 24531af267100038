"""The documentation as blocks of code, for the tests that hold it to its word."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
                    re.MULTILINE | re.DOTALL)  # fmt: skip
_PATH = re.compile(r"^# (\S+/\S+\.\w+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block. `note` says why it is not run as it stands, where it is not."""

    page: Path
    line: int
    language: str
    text: str
    note: str | None

    @property
    def path(self) -> str | None:
        """The file that the block shows, named in a comment on its first line."""
        match = _PATH.match(self.text.partition("\n")[0])
        return match[1] if match and self.language != "bash" else None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a block for the shell."""
        if self.language != "bash":
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        simple = [part for line in lines for part in line.split("&&")]
        words = [shlex.split(part, comments=True) for part in simple]
        return [command for command in words if command]

    @property
    def runs(self) -> list[list[str]]:
        """The arguments of each `python run.py`."""
        return [words[2:] for words in self.commands if words[:2] == ["python", "run.py"]]


def blocks(page: Path) -> Iterator[Block]:
    """The page's blocks that have a language."""
    content = page.read_text()
    for match in _BLOCK.finditer(content):
        line = content.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], match["text"], match["note"])
