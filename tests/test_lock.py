"""The committed `dvc.lock` is that of the committed code, parameters and results."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """What the next commit would hold and nothing else; a run of one's own may well leave another lock file."""
    folder = tmp_path_factory.mktemp("committed")
    command = ["git", "checkout-index", "--all", f"--prefix={folder}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing is committed: {done.stderr}")
    subprocess.run(["git", "init", "-q", folder], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield Repo()


def test_it_names_every_stage_of_the_pipeline_and_no_other(repo: Repo) -> None:
    locked = yaml.safe_load((Path(repo.root_dir) / "dvc.lock").read_text())["stages"]
    assert sorted(locked) == sorted(stage.name for stage in repo.index.stages)


def test_commands_parameters_and_files_in_git_are_those_that_it_names(repo: Repo) -> None:
    cached = [Path(out.fs_path).relative_to(repo.root_dir) for out in repo.index.outs if out.use_cache]

    def lies_in_git(name: str) -> bool:
        """Whether none of it is what DVC keeps, which a clone lacks."""
        return not any(Path(name).is_relative_to(out) or out.is_relative_to(name) for out in cached)

    def changes(kind: Any) -> list[str]:
        """Flatten one entry of a stage's status: "changed command", or files with what became of them."""
        if isinstance(kind, str):
            return [kind]
        return [f"{name}: {how}" for files in kind.values() for name, how in files.items() if lies_in_git(name)]

    changed = {stage: [line for kind in kinds for line in changes(kind)] for stage, kinds in repo.status().items()}
    assert {stage: lines for stage, lines in changed.items() if lines} == {}, "run `make repro`, commit its results"
