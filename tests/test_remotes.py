"""Checkpoints through remotes: a folder, a real OpenSSH server and moto's S3 server, and what goes wrong with them."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clone import MAKE, Project, small_project
from remote_servers import S3, OpenSsh

pytestmark = pytest.mark.long
CHECKPOINT = "models/distilbert/model.safetensors"
LARGE_BYTES = 256 * 2**20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of a small pipeline, committed with its results."""
    made = small_project(tmp_path_factory.mktemp("clone"))
    made.repro()
    made.run("git", "add", "-A")
    made.run("git", "commit", "-qm", "results")
    return made


@pytest.fixture
def ssh(tmp_path: Path) -> OpenSsh:
    return OpenSsh(tmp_path / "ssh")


def use(project: Project, url: str, settings: dict[str, str]) -> None:
    """Point a clone to a remote as its user does, with what is secret in the local configuration."""
    project.run(*MAKE, "remote", f"URL={url}")
    for key, value in settings.items():
        project.run("dvc", "remote", "modify", "--local", "storage", key, value)


@pytest.fixture
def other(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A fresh clone of the results' commit; the first one gets its configuration back afterwards."""
    clone = Project(tmp_path / "other")
    project.run("git", "clone", "-q", str(project.folder), str(clone.folder))
    yield clone
    project.run("git", "checkout", "-q", ".dvc/config")
    (project.folder / ".dvc/config.local").unlink(missing_ok=True)


def has_everything(project: Project, other: Project) -> None:
    from transformers import AutoModelForMaskedLM

    assert other.repro() == []
    assert (other.folder / CHECKPOINT).read_bytes() == (project.folder / CHECKPOINT).read_bytes()
    assert AutoModelForMaskedLM.from_pretrained(other.folder / "models/distilbert").num_parameters()


def objects(store: Path) -> list[Path]:
    return [path for path in (store / "files/md5").rglob("*") if path.is_file() and ".tmp" not in path.name]


def sound(path: Path) -> bool:
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    return digest == path.parent.name + path.name.partition(".")[0]


def stored(project: Project, name: str) -> str:
    """The name in a remote of a file's content."""
    digest = hashlib.md5((project.folder / name).read_bytes()).hexdigest()
    return f"files/md5/{digest[:2]}/{digest[2:]}"


@pytest.fixture(params=[OpenSsh, S3])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> OpenSsh | S3:
    """Each kind of server, not running yet."""
    kind: type[OpenSsh] | type[S3] = request.param
    return kind(tmp_path / "server")


@pytest.fixture
def joined(server: OpenSsh | S3, project: Project, other: Project) -> Iterator[OpenSsh | S3]:
    """Each kind of server, running and the remote of both clones."""
    with server.running():
        for clone in (project, other):
            use(clone, server.url, server.settings)
        yield server


@pytest.mark.usefixtures("joined")
def test_a_fresh_clone_has_nothing_left_to_run(project: Project, other: Project) -> None:
    project.run(*MAKE, "push")
    other.run(*MAKE, "pull")
    has_everything(project, other)


def test_the_default_remote_is_a_folder_that_git_ignores(project: Project, other: Project) -> None:
    project.run(*MAKE, "push")
    assert objects(project.folder / ".remote")
    assert ".remote" not in project.run("git", "status", "--short")
    shown = other.run(*MAKE, "pull", check=False)  # its own .remote is empty
    assert f"{other.folder}/.remote/files/md5: the remote is empty" in shown
    assert "`make remote URL=...` with a folder, ssh://host/folder or s3://bucket/folder points elsewhere" in shown
    assert "Traceback" not in shown
    use(other, str(project.folder / ".remote"), {})
    other.run(*MAKE, "pull")
    has_everything(project, other)


def kill_a_push(project: Project, *arguments: str, when: Callable[[], bool]) -> None:
    """Push one file at a time, and kill it as soon as a condition holds."""
    pushing = subprocess.Popen(
        ["dvc", "push", "-j", "1", *arguments],
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not when():
        assert pushing.poll() is None, "finished before it could be killed"
        time.sleep(0.01)
    os.killpg(pushing.pid, signal.SIGKILL)
    pushing.wait()


def test_a_push_that_is_killed_within_a_file_does_not_pass_it_for_whole(
    project: Project, other: Project, ssh: OpenSsh
) -> None:
    large = project.folder / "large.bin"
    large.write_bytes(os.urandom(2**20) * (LARGE_BYTES // 2**20))
    project.run("dvc", "add", "large.bin")
    shutil.copy(project.folder / "large.bin.dvc", other.folder)
    name = stored(project, "large.bin")
    try:
        with ssh.running():
            for clone in (project, other):
                use(clone, ssh.url, ssh.settings)
            kill_a_push(project, "large.bin", when=lambda: any(size > 2**20 for size in sizes(ssh.store)))
            assert max(sizes(ssh.store)) < LARGE_BYTES
            assert not (ssh.store / name).exists()
            other.run("dvc", "pull", "large.bin", check=False)
            assert not (other.folder / "large.bin").exists()
            project.run("dvc", "push", "large.bin")
            assert sound(ssh.store / name)
            other.run("dvc", "pull", "large.bin")
        assert (other.folder / "large.bin").read_bytes() == large.read_bytes()
    finally:
        for path in (large, project.folder / "large.bin.dvc", project.folder / ".gitignore"):
            path.unlink(missing_ok=True)
        project.run("git", "checkout", "-q", ".")


def sizes(store: Path) -> list[int]:
    return [path.stat().st_size for path in store.rglob("*") if path.is_file()]


def test_a_push_that_is_killed_leaves_whole_objects_and_the_next_one_completes_it(
    project: Project, other: Project, ssh: OpenSsh
) -> None:
    with ssh.running():
        for clone in (project, other):
            use(clone, ssh.url, ssh.settings)
        kill_a_push(project, "--run-cache", when=lambda: len(objects(ssh.store)) >= 5)
        assert all(sound(path) for path in objects(ssh.store))
        assert "lacks" in other.run(*MAKE, "pull", check=False)
        project.run(*MAKE, "push")
        other.run(*MAKE, "pull")
    has_everything(project, other)


def test_a_damaged_object_is_named_not_used_and_replaced(project: Project, other: Project, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for clone in (project, other):
        use(clone, str(store), {})
    project.run(*MAKE, "push")
    damaged = store / stored(project, CHECKPOINT)
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    shown = other.run(*MAKE, "pull", check=False)
    assert f"holds {CHECKPOINT} damaged" in shown
    assert "`make push REPAIR=1`" in shown
    assert not (other.folder / CHECKPOINT).exists() or (other.folder / CHECKPOINT).read_bytes() != damaged.read_bytes()
    assert "distill" in other.repro()
    assert (other.folder / CHECKPOINT).read_bytes() == (project.folder / CHECKPOINT).read_bytes()
    assert f"{CHECKPOINT}: damaged in the remote, is replaced" in other.run(*MAKE, "push", "REPAIR=1")
    assert sound(damaged)


def test_an_empty_remote_and_a_damaged_object_are_told_and_mended(
    joined: OpenSsh | S3, project: Project, other: Project
) -> None:
    assert "the remote is empty" in other.run(*MAKE, "pull", check=False)
    project.run(*MAKE, "push")
    joined.spoil(stored(project, CHECKPOINT))
    assert f"holds {CHECKPOINT} damaged" in other.run(*MAKE, "pull", check=False)
    assert f"{CHECKPOINT}: damaged in the remote, is replaced" in project.run(*MAKE, "push", "REPAIR=1")
    other.run(*MAKE, "pull")
    has_everything(project, other)


def test_a_remote_that_is_away_is_one_clear_line(server: OpenSsh | S3, other: Project) -> None:
    use(other, server.url, server.settings)
    for target in ("pull", "push"):
        shown = other.run(*MAKE, target, check=False)
        assert f"{server.url.partition(':')[0]}://" in shown
        assert "cannot be reached" in shown
        assert "`make remote URL=...` names another" in shown
        assert "Traceback" not in shown


def test_a_bucket_without_credentials_is_one_clear_line(other: Project, tmp_path: Path) -> None:
    server = S3(tmp_path / "server")
    endpoint = {key: value for key, value in server.settings.items() if not key.endswith(("_id", "_key"))}
    use(other, server.url, {**endpoint, "profile": "unheard"})
    shown = other.run(*MAKE, "pull", check=False)
    assert "cannot be reached" in shown
    assert "Traceback" not in shown
