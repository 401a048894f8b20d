"""README and documents: spliced tables, committed metrics, and parameters that exist."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.core.errors import UserError
from stages.core.params import validate
from stages.reporting import published, readme
from stages.reporting.readme import BEGIN, END, splice

ROOT = Path(__file__).resolve().parents[1]
TEXT = f"# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n"


def spliced(text: str) -> str:
    """What stands between the markers."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def test_tables_are_spliced_between_the_markers_and_nothing_else_changes():
    once = splice(TEXT, "### GLUE\n\n| a |\n")
    assert once == f"# Title\n\n{BEGIN}\n\n### GLUE\n\n| a |\n\n{END}\n\nmore\n"
    assert splice(once, "### GLUE\n\n| a |\n") == once
    assert spliced(once) == "### GLUE\n\n| a |"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_missing_or_doubled_markers_are_an_error(text):
    with pytest.raises(UserError, match="tables:begin"):
        splice(text, "tables")


def test_the_command_rewrites_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(TEXT)
    with pytest.raises(UserError, match=r"tables\.md: not found; `dvc repro report`"):
        readme.main()
    (tmp_path / "plots/report").mkdir(parents=True)
    (tmp_path / "plots/report/tables.md").write_text("new\n")
    readme.main()
    assert spliced((tmp_path / "README.md").read_text()) == "new"


def staged(path: str) -> str:
    """A file as the next commit would hold it; a run of one's own on another machine may well have other figures."""
    done = subprocess.run(["git", "show", f":{path}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{path} is not committed")
    return done.stdout


def test_the_committed_readme_shows_the_committed_tables_and_metrics():
    tables = staged("plots/report/tables.md")
    assert spliced(staged("README.md")) == tables.strip(), "run `make readme`"
    rows = YAML(typ="safe").load(staged("params.yaml"))["models"]
    for suite, digits in {"glue": 4, "glue_paper": 2, "imdb": 4, "squad": 2}.items():
        for model in rows:
            for value in json.loads(staged(f"metrics/{suite}/{model}.json")).values():
                assert f"{value:.{digits}f}" in tables, f"metrics/{suite}/{model}.json"


def keys(values: dict, prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found |= {prefix + key} | (keys(value, f"{prefix}{key}.") if isinstance(value, dict) else set())
    return found


@pytest.mark.parametrize("document", ["README.md", "docs/experiments.md", "docs/migration.md"])
def test_parameters_and_profiles_that_documents_name_exist(document):
    text = (ROOT / document).read_text()
    values = YAML(typ="safe").load(ROOT / "profiles/tiny.yaml")
    known = keys(values)
    sections = "|".join(key for key, value in values.items() if isinstance(value, dict))
    named = set(re.findall(rf"`((?:{sections})(?:\.[\w-]+)*)`", text))
    changed = re.findall(r"""-S ('?)([~+]?)([\w.-]+)(?:=((?(1)[^']*|[^\s`]*)))?""", text)
    assert changed
    assert named | {key for _, mark, key, _ in changed if mark != "+"} <= known
    for _, mark, key, value in changed:
        if mark == "+":  # a key to add must be one that is not there, but that the parameters allow there
            assert key not in known
            validate(with_key(values, key.split("."), value))
    for names in re.findall(r'make profile NAME="?([\w ]+)', text):
        for name in names.split():
            assert (ROOT / f"profiles/{name}.yaml").exists(), name


def with_key(values: dict, path: list[str], value: str) -> dict:
    """A copy of nested parameters with one more key."""
    first, *rest = path
    inner = with_key(values[first], rest, value) if rest else YAML(typ="safe").load(value)
    return {**values, first: inner}


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/experiments.md", "docs/migration.md", "docs/results.md"]
)
def test_links_lead_somewhere(document):
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_published_figures_are_whole_and_consistent():
    for rows in (published.glue_rows(), published.glue_paper_rows()):
        for row in rows:
            assert {"CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"} <= set(row.figures)
    for row in published.glue_paper_rows():
        tasks = [value for task, value in row.figures.items() if task != "average"]
        assert sum(tasks) / 9 == pytest.approx(row.figures["average"], abs=0.4)  # the paper's MNLI is in doubt
    assert all(0 < row.figures["accuracy"] < 1 for row in published.imdb_rows())
    assert all(1 < row.figures["exact_match"] < row.figures["f1"] < 100 for row in published.squad_rows())
