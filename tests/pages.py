"""`report.html` as a browser would find it."""

import json
from html.parser import HTMLParser
from pathlib import Path

from aim_exp.report.context import make_context
from aim_exp.report.differences import differences
from aim_exp.report.html import render
from aim_exp.report.load import load
from aim_exp.report.rows import make_report


class Page(HTMLParser):
    """What a browser would find: elements, the text of each script, and all other text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.text += data

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])

    @property
    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.elements if attributes.get("id")}

    def named(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and wanted.items() <= attributes.items()
        ]


def text_of(directory: Path, axes: tuple[str, str] | None = None, x: str = "omega") -> str:
    report = make_report(load(directory))
    return render(make_context(report, differences(report), axes=axes, x=x))


def page_of(directory: Path, axes: tuple[str, str] | None = None, x: str = "omega") -> Page:
    return Page(text_of(directory, axes, x))
