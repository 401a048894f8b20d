"""What `make test` shows of remotes and experiments: `make push` and `make pull` by a folder and by S3, one experiment.

The longer ways are those of test_remotes.py and test_experiments.py. The S3 server is moto's, on loopback.
"""

import os
import re
from pathlib import Path

import pytest
from clone import MAKE, Project, small_project
from remote_servers import S3

DONE = "distill"  # the stage up to which the pipeline has run
CHECKPOINT = "models/distilbert/model.safetensors"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = small_project(tmp_path_factory.mktemp("clone"))
    assert DONE in made.repro(DONE)
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "results")
    return made


@pytest.fixture
def other(project: Project, tmp_path: Path) -> Project:
    clone = Project(tmp_path / "other")
    project.run("git", "clone", "-q", str(project.folder), str(clone.folder))
    return clone


def send_and_bring(project: Project, other: Project, url: str, settings: dict[str, str]) -> None:
    """Push from one clone and pull into another, which then has nothing left to run."""
    for clone in (project, other):
        clone.run(*MAKE, "remote", f"URL={url}")
        for key, value in settings.items():
            clone.run("dvc", "remote", "modify", "--local", "storage", key, value)
    assert "the remote is empty" in other.run(*MAKE, "pull", check=False)
    project.run(*MAKE, "push")
    assert "`make repro` runs the rest" in other.run(*MAKE, "pull")
    assert other.repro(DONE) == []
    assert (other.folder / CHECKPOINT).read_bytes() == (project.folder / CHECKPOINT).read_bytes()


def test_checkpoints_travel_through_a_folder(project: Project, other: Project, tmp_path: Path) -> None:
    send_and_bring(project, other, str(tmp_path / "store"), {})


def test_checkpoints_travel_through_s3(project: Project, other: Project, tmp_path: Path) -> None:
    server = S3(tmp_path / "server")
    with server.running():
        send_and_bring(project, other, server.url, server.settings)
    # what the bucket needed is no setting of a folder, which DVC would refuse
    assert "endpointurl" in (project.folder / ".dvc/config.local").read_text()
    assert "removed the former remote's settings" in project.run(*MAKE, "remote", f"URL={tmp_path / 'folder'}")
    project.run(*MAKE, "push")
    project.run("dvc", "remote", "modify", "--local", "storage", "verify", "false")
    for same in (tmp_path / "folder", Path(os.path.relpath(tmp_path / "folder", project.folder))):
        assert "removed" not in project.run(*MAKE, "remote", f"URL={same}")
    assert "verify" in (project.folder / ".dvc/config.local").read_text()
    (project.folder / ".dvc/config.local").unlink()


@pytest.mark.parametrize("url", ["gs://bucket/folder", "azure://container/folder", ""])
def test_other_storage_is_refused_in_one_line(project: Project, url: str) -> None:
    shown = project.run(*MAKE, "remote", f"URL={url}", check=False)
    assert re.search(r"^error: .*s3://bucket/folder", shown, re.MULTILINE)
    assert project.run("git", "status", "--short", "params.yaml") == ""


def test_an_experiment_is_run_compared_and_left(project: Project) -> None:
    before = project.json("metrics/distill.json")
    shown = project.run("dvc", "exp", "run", "-n", "longer", "-S", "epochs=2", DONE)
    assert re.findall("Running stage '(.*)'", shown) == [DONE]
    assert re.search(r"epochs\s*\|\s*\S+\s*\|\s*2", project.run("dvc", "exp", "diff", "HEAD", "longer", "--md"))
    assert "longer" in project.run("dvc", "exp", "show", "--csv")
    assert project.json("metrics/distill.json") != before
    project.run("git", "checkout", ".")
    project.run("dvc", "checkout", DONE)
    assert project.json("metrics/distill.json") == before
