"""The report's page: complete, escaped, self-contained, and whole in a real browser at the widths of desk and phone."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_project import ROOT, make_project, run
from ruamel.yaml import YAML

from stages.reporting.findings import SMALLEST

FIGURES = ("tasks", "losses", "pareto", "latency")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = "<script>alert('x')</script>&\"owner\""


class Reader(HTMLParser):
    """Collects tags with their attributes, and the cells of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    loaded["seeds"] = [1, 2, 3]
    return loaded


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page(values: dict[str, Any], project: Path) -> str:
    run(values, project)
    return (project / "plots/report/index.html").read_text()


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_every_table_of_the_markdown_stands_on_the_page(values: dict[str, Any], project: Path) -> None:
    found = read(page(values, project)).tables
    lines = (project / "plots/report/tables.md").read_text().splitlines()
    expected: list[list[list[str]]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and not set(line) <= set("|-: "):
            if not before.startswith("|"):
                expected.append([])
            expected[-1].append([cell.strip() for cell in line.strip("|").split("|")])
    assert len(expected) >= 10
    assert [table for table in found if table in expected] == expected


def test_the_page_needs_nothing_else(values: dict[str, Any], project: Path) -> None:
    text = page(values, project)
    tags = read(text).tags
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")), (tag, address)
    assert not re.search(r"@import|url\((?!#)", text)


def test_every_figure_names_what_it_shows_and_its_data(values: dict[str, Any], project: Path) -> None:
    text = page(values, project)
    for name in FIGURES:
        assert (project / f"plots/report/{name}.png").read_bytes().startswith(b"\x89PNG")
        block = text.split(f'<figure id="figure-{name}"')[1].split("</figure>")[0]
        assert block.count("<svg") == 1
        assert re.search(r'role="img" aria-label="[^"]{20,}"', block)
        assert re.search(r"Data: <code>[^<]+</code>", block)
    assert "#010203" not in text


def test_what_comes_from_parameters_is_escaped(values: dict[str, Any], project: Path) -> None:
    values["teacher"]["init"] = HOSTILE
    text = page(values, project)
    assert HOSTILE not in text
    assert "script" not in {tag for tag, _ in read(text).tags}
    assert html.escape(HOSTILE, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in text


def test_the_headline_is_what_the_tables_say(values: dict[str, Any], project: Path) -> None:
    text = page(values, project)
    lines = (project / "plots/report/tables.md").read_text().splitlines()
    average = next(line for line in lines if line.startswith("| average"))
    retained = float(average.strip("|").split("|")[-2])
    shown = re.findall(r'<div class="card"><b>([^<]+)</b>', text)
    assert float(shown[0].removesuffix(" %")) == pytest.approx(100 * retained, abs=0.06)
    student, small = (
        json.loads((project / f"metrics/compression/{name}.json").read_text()) for name in ("baseline", SMALLEST)
    )
    assert f"{100 * small['size_mb'] / student['size_mb']:.1f} %" in shown
    assert "2.0x" in shown  # BERT takes 8 s, DistilBERT 4


def test_questions_are_answered_from_the_figures(values: dict[str, Any], project: Path) -> None:
    text = page(values, project)
    assert "On a phone it was not measured yet" in text
    assert "Quantization changes the distillation loss by +1.0000, pruning by +2.0000, both together by +3.0000" in text
    assert "the two effects add up" in text
    for name in ("onnx_pruned", "onnx_pruned_int8"):  # the fastest two predict worse now
        path = project / f"metrics/quality/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"accuracy": 0.4, "distill_loss": 9.0}))
    path = project / "metrics/quality/combined.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"distill_loss": 9.0}))
    text = page(values, project)
    assert "ONNX, INT8: of the 6 variants" in text
    assert "the two effects do not simply add up" in text


def test_few_rows_and_one_seed_are_warned_of(values: dict[str, Any], project: Path) -> None:
    assert "One fine-tuning seed" not in page(values, project)
    values["seeds"] = [1]
    text = page(values, project)
    assert "One fine-tuning seed" in text
    assert "Fewer than 1,000 dev rows (CoLA, MNLI" in text


def test_without_any_task_there_is_a_page(values: dict[str, Any], project: Path) -> None:
    for suite in ("glue", "imdb", "squad"):
        values[suite]["tasks"] = {}
    assert 'id="figure-pareto"' in page(values, project)


MEASURE = """<script>
const visible = box => box.getBoundingClientRect().width > 100 && box.getBoundingClientRect().height > 50;
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument;
    return {
      width: frame.clientWidth,
      content: page.documentElement.scrollWidth,
      tables: page.querySelectorAll("table").length,
      figures: [...page.querySelectorAll("figure svg, figure img")].filter(visible).length,
      broken: [...page.images].filter(image => !image.naturalWidth).length,
    };
  });
  document.title = JSON.stringify(found);
});
</script>"""


def test_a_browser_shows_all_of_it_at_both_widths(values: dict[str, Any], project: Path, tmp_path: Path) -> None:
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    text = page(values, project)
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(text)}"></iframe>' for w in (1280, 390))
    (tmp_path / "frames.html").write_text(f"<!doctype html><title></title>{frames}{MEASURE}")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[:500]
    for frame in json.loads(html.unescape(title[1])):
        assert frame["content"] <= frame["width"], "the page is wider than its window"
        assert frame["figures"] == len(FIGURES)
        assert frame["broken"] == 0
        assert frame["tables"] == len(read(text).tables)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
