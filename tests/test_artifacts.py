"""Outputs are whole or absent."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.core.artifacts import atomic_path, digest, read_json, write_json
from stages.core.errors import UserError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for names in (["a", "b"], ["b", "c"]):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).write_text(name)
        assert sorted(p.name for p in target.iterdir()) == names
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, running, other = (tmp_path / f".model.{name}.tmp" for name in (dead.pid, os.getppid(), "mine"))
    left.mkdir()
    for path in (left / "half", running, other):
        path.write_text("half")
    with atomic_path(tmp_path / "model") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([running.name, other.name, "model"])


def test_nan_is_not_written_as_if_it_were_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "m.json", {"loss": float("nan")})
    assert os.listdir(tmp_path) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "v.json"
    write_json(path, value)
    assert read_json(path) == json.loads(json.dumps(value))


@pytest.mark.parametrize(("content", "says"), [(None, "not found"), ('{"a": 1', "not valid JSON")])
def test_unreadable_json_is_one_clear_line(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "m.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=says):
        read_json(path)


def test_digest_sees_contents_and_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest({"lr": 1}, tmp_path)
    assert digest({"lr": 1}, tmp_path) == before
    assert digest({"lr": 2}, tmp_path) != before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest({"lr": 1}, tmp_path) != before
