"""The report as one HTML page that needs nothing else: no script, no font, no request."""

import base64
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from stages.drawing import INK, PAPER
from stages.reporting.findings import Answer, Headline

TEMPLATE = Path(__file__).with_name("page.html.j2")
MADE_FROM = ("stages", "params.yaml", "dvc.yaml", "published", "constraints.txt")


@dataclass(frozen=True)
class Figure:
    """A drawing, what it shows in words, and the files that its figures stand in."""

    name: str
    caption: str
    data: str
    file: Path

    @property
    def markup(self) -> Markup:
        """The drawing as part of a page: SVG in the page's colours, or a picture that is embedded."""
        if self.file.suffix == ".svg":
            drawing = self.file.read_text(encoding="utf-8")
            drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor").replace(PAPER, "var(--paper)")
            return Markup(re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', self._svg_start, drawing, count=1))
        content = base64.b64encode(self.file.read_bytes()).decode()
        return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(self.caption, content)

    def _svg_start(self, match: "re.Match[str]") -> str:
        label = Markup('role="img" aria-label="{}"').format(self.caption)
        return f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" xmlns="http://www.w3.org/2000/svg" {match[1]} {label}>'


@dataclass(frozen=True)
class Story:
    """All that the page tells beside the tables."""

    title: str
    facts: Mapping[str, str]
    headlines: Sequence[Headline]
    answers: Sequence[Answer]
    warnings: Sequence[str]
    figures: Sequence[Figure]


def render(story: Story, tables: str) -> str:
    """Lay the page out; `tables` is the Markdown of tables.md, whose tables become scrollable ones."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    introduction, *sections = re.split(r"(?m)^### ", tables)
    return environment.get_template(TEMPLATE.name).render(
        story=story,
        introduction=_html(introduction),
        markdown=_html,
        sections=[_section(section) for section in sections],
    )


def _section(text: str) -> dict[str, Any]:
    heading, _, body = text.partition("\n")
    return {"heading": heading, "anchor": re.sub(r"\W+", "-", heading.lower()).strip("-"), "body": _html(body)}


def _html(markdown: str) -> Markup:
    """Convert Markdown without HTML of its own, which is escaped."""
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return Markup(html.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>"))


def commit() -> str:
    """Name the commit that is checked out, and whether what makes results is changed; `none` outside of a checkout.

    Only code and settings count: a run itself changes metrics and `dvc.lock`.
    """
    try:
        found = _git("describe", "--always", "--abbrev=10", "--exclude=*")
        changed = _git("status", "--porcelain", "--", *MADE_FROM)
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{found}, with uncommitted changes of code or settings" if changed else found


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
