"""The comment on a pull request: quality metrics that changed, within GitHub's limits, in the comment made before."""

import json
import os
import re
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from clone import ROOT, Project, copy_tree

SCRIPT = ROOT / ".ci/metrics-comment"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("metrics_comment", str(SCRIPT))
    spec = spec_from_loader("metrics_comment", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode  # no cache beside the script
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def change(project: Project, name: str, key: str, value: float) -> None:
    values = project.json(name)
    (project.folder / name).write_text(json.dumps(values | {key: value}))


def test_it_shows_scores_and_no_timings(tmp_path: Path) -> None:
    copy_tree(tmp_path)
    project = Project(tmp_path)
    project.commit()
    written = [sys.executable, ".ci/metrics-comment", "write", "HEAD", "metrics.md"]
    project.run(*written)
    assert "No change." in (tmp_path / "metrics.md").read_text()
    change(project, "metrics/glue/distilbert.json", "RTE", 0.123)
    change(project, "metrics/speed/bert.json", "inference_seconds", 99.0)
    change(project, "metrics/compression/baseline.json", "load_ms", 99.0)
    project.run(*written)
    text = (tmp_path / "metrics.md").read_text()
    assert text.startswith("<!--")
    assert re.search(r"metrics/glue/distilbert.json\s*\| RTE\s*\|.*\| 0.123", text)
    assert "99.0" not in text
    assert project.run("git", "rev-parse", "--short", "HEAD").strip() in text
    assert "Run on " in text


def test_it_is_cut_at_the_end_of_a_line_to_what_github_takes(script: ModuleType) -> None:
    lines = "".join(f"| row {number} |\n" for number in range(10_000))
    shown = script.cut(lines)
    assert len(shown) <= 65_536
    assert shown.endswith(script.CUT)
    assert re.search(r"\| row \d+ \|$", shown.removesuffix(script.CUT))
    assert script.cut("short") == "short"


GH = """\
#!{python}
import json, pathlib, sys
with pathlib.Path("calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "--paginate" in sys.argv:
    print(json.dumps({pages}))
"""


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([[]], ["--method", "POST", "repos/{owner}/{repo}/issues/7/comments"]),
        (
            [[{"id": 1, "body": "mine"}], [{"id": 2, "body": "MARKER\n"}]],
            ["--method", "PATCH", "repos/{owner}/{repo}/issues/comments/2"],
        ),
    ],
)
def test_its_own_comment_is_replaced_and_nobody_else_s(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: Any, expected: list[str]
) -> None:
    """With a stand-in for `gh`, which has the real one's options."""
    monkeypatch.chdir(tmp_path)
    gh = tmp_path / "gh"
    listed = repr(pages).replace("MARKER", script.MARKER)
    gh.write_text(GH.format(python=sys.executable, pages=listed))
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    script.post(Path("metrics.md"), "7")
    calls = [json.loads(line) for line in Path("calls").read_text().splitlines()]
    assert calls[-1] == ["api", *expected, "-F", "body=@metrics.md"]
    assert len(calls) == 2


def test_only_the_job_that_runs_none_of_the_pull_request_s_code_may_write() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    writing = {name for name, job in workflow["jobs"].items() if "write" in (job.get("permissions") or {}).values()}
    assert writing == {"comment"}
    job = workflow["jobs"]["comment"]
    assert "head.repo.full_name == github.repository" in job["if"], "a fork's token may not write"
    assert job["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
