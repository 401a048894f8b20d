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
from test_device_report import MEASURED as PHONE

from stages.drawing import saved
from stages.measurement.variants import ONNX_MODELS
from stages.reporting.findings import SMALLEST
from stages.reporting.page import commit

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
    retained = average.strip("|").split("|")[-3].strip()
    shown = re.findall(r'<div class="card"><b>([^<]+)</b>', text)
    assert shown[0] == retained
    student, small = (
        json.loads((project / f"metrics/compression/{name}.json").read_text()) for name in ("baseline", SMALLEST)
    )
    assert f"{100 * small['size_mb'] / student['size_mb']:.1f} %" in shown
    assert "2.0x" in shown  # BERT takes 8 s, DistilBERT 4


def test_every_question_is_answered_and_the_headline_says_of_how_many_seeds(
    values: dict[str, Any], project: Path
) -> None:
    text = page(values, project)
    questions = text.split('<h2 id="answers">')[1].split('<h2 id="figures">')[0].split("<h3>")[1:]
    assert len(questions) == 5
    for question in questions:
        assert question.split("</h3>")[1].strip().startswith("<p><strong>"), question  # a verdict comes first
    assert "On a phone it was not measured" not in text
    assert "on a phone it was not measured" in text
    assert "3 fine-tuning seeds; 95\u00a0% interval" in text
    values["seeds"] = [1]
    assert "one fine-tuning seed; 95\u00a0% interval" in page(values, project)


def test_cautions_stand_on_the_page_and_above_the_tables(values: dict[str, Any], project: Path) -> None:
    assert "One fine-tuning seed:" not in page(values, project)
    values["seeds"] = [1]
    for text in (page(values, project), (project / "plots/report/tables.md").read_text().split("###")[0]):
        assert "One fine-tuning seed:" in text
        assert "Fewer than 1,000 dev rows (CoLA, MNLI" in text
        assert re.search(r"cannot be told apart on [\w ,-]*WNLI:", text)
        assert "400 masked tokens" in text


def test_the_machine_and_its_libraries_are_named(values: dict[str, Any], project: Path) -> None:
    text = page(values, project)
    assert "A Processor, 1 thread of 2 cores (avx2 avx512_vnni), 7.5 GB, Linux x86_64" in text
    assert "python 3.11.7, torch 2.13.0, transformers 5.0.0, onnxruntime 1.32.0" in text


def test_changed_code_is_told_from_its_commit_and_a_run_s_own_metrics_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commit() == "none"
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "metrics.json").write_text("{}")
    name = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    clean = commit()
    assert re.fullmatch(r"[0-9a-f]{10}", clean)
    (tmp_path / "metrics.json").write_text("{1}")
    assert commit() == clean
    (tmp_path / "params.yaml").write_text("seed: 2\n")
    assert commit() == f"{clean}, with uncommitted changes of code or settings"


def measured_on_a_phone(project: Path) -> None:
    """Results of a phone for every exported model, and their drawing."""
    for number, name in enumerate(ONNX_MODELS):
        row = PHONE | {"p50_ms": 40.0 - number, "size_mb": 12.0 - number}
        (project / f"metrics/android/{name}.json").write_text(json.dumps(row))
    drawing = project / "plots/android-bench-collect/latency.png"
    drawing.parent.mkdir(parents=True)
    with saved([drawing], (4.0, 3.0), "none") as figure:
        figure.subplots()


def test_a_measured_phone_is_answered_from_and_drawn(values: dict[str, Any], project: Path) -> None:
    measured_on_a_phone(project)
    text = page(values, project)
    assert "<strong>Yes:</strong> on A Phone &lt;1&gt; the fastest model takes 37.0 ms for 64 tokens" in text
    assert "on this device it is 1.0x: ours contradicts it" in text
    assert 'id="figure-android"' in text


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
      cramped: [...page.querySelectorAll("th, td")].filter(cell => cell.scrollWidth > cell.clientWidth + 1).length,
      broken: [...page.images].filter(image => !image.naturalWidth).length,
      ink: getComputedStyle(page.body).color,
      paper: getComputedStyle(page.body).backgroundColor,
    };
  });
  document.title = JSON.stringify(found);
});
</script>"""


def brightness(colour: str) -> float:
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_all_of_it_at_both_widths_in_light_and_dark(
    values: dict[str, Any], project: Path, tmp_path: Path, dark: bool
) -> None:
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    if dark:  # in one of the two, so that a page with a phone's results is seen as well
        measured_on_a_phone(project)
    text = page(values, project)
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(text)}"></iframe>' for w in (1280, 390))
    scheme = '<meta name="color-scheme" content="light dark">'
    (tmp_path / "frames.html").write_text(f"<!doctype html>{scheme}<title></title>{frames}{MEASURE}")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--disable-background-networking", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[:500]
    for frame in json.loads(html.unescape(title[1])):
        assert frame["content"] <= frame["width"], "the page is wider than its window"
        assert frame["figures"] == len(FIGURES) + dark
        assert frame["broken"] == 0
        assert frame["cramped"] == 0, "text of a cell reaches into the next one"
        assert frame["tables"] == len(read(text).tables)
        ink, paper = brightness(frame["ink"]), brightness(frame["paper"])
        assert (ink > 0.8 and paper < 0.2) if dark else (ink < 0.2 and paper > 0.8)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
