"""DVC's side of a run: what is out of date, and taking finished stages into the workspace without executing them."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.parsing import split_group_name
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph, plan_repro
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_pipeline_file, to_single_stage_lockfile

from cluster import runs
from cluster.scheduler import CannotRun, State


class NotCached(Exception):  # noqa: N818 - not an error, but DVC's answer
    """DVC would execute the stage: nothing it knows of was made of the same inputs."""


@contextmanager
def nothing_executed() -> Iterator[None]:
    """Let DVC do all that `dvc repro` does up to the command of a stage, and raise NotCached there."""

    def refuse(*_: object, **__: object) -> None:
        raise NotCached

    with patch("dvc.stage.run.unlocked_repo", lambda command: refuse):
        yield


class DvcPipeline:
    """The stages of the workspace's `dvc.yaml`, as `cluster.scheduler` sees them."""

    def __init__(self, repo: Repo, targets: Sequence[str] = (), remote: bool = False) -> None:
        """Plan what `dvc repro TARGETS` would; `remote`: results of other machines come by the default remote.

        Raises DvcException for a target that does not exist and whatever else DVC finds wrong with the pipeline.
        """
        self._repo, self._remote = repo, remote
        self._taken: dict[str, Any] = {}  # stages that dvc.lock does not name yet
        self._written = time.monotonic()
        with repo.lock:
            graph = get_active_graph(repo.index.graph)
            wanted = [stage for target in targets or ["dvc.yaml"] for stage in repo.stage.collect(target)]
            steps = plan_repro(graph, wanted)
        self._stages = {stage.addressing: stage for stage in steps}
        self.upstream: Mapping[str, frozenset[str]] = {
            stage.addressing: frozenset(needed.addressing for needed in graph.successors(stage)) for stage in steps
        }

    def settle(self, stage: str) -> State | None:
        """Bring the stage up to date if that takes no execution; None if it takes one."""
        try:
            return self._settle(stage)
        except DvcException as error:
            raise CannotRun(" ".join(str(error).split())) from error

    def _settle(self, stage: str) -> State | None:
        found = self._stages[stage]
        with self._repo.lock:
            if not found.changed():
                return State.UNCHANGED
            try:
                with nothing_executed():
                    found.run()
            except NotCached:
                # DVC has noted the present inputs. Without that, it would take the former outputs for made of them.
                for out in found.outs:
                    out.hash_info = type(out.hash_info)()
            else:
                self._note(stage)
                return State.CACHED
        if self._remote and not self.stays_here(stage):
            self._fetch(found)
            if not self.take([stage]):
                return State.CACHED
        return None

    def take(self, stages: Sequence[str]) -> Mapping[str, str]:
        """Take what was made from the run cache, or from this workspace; a message for each stage that is in none."""
        missing = {}
        for name in stages:
            stage = self._stages[name]
            try:
                if self.stays_here(name):  # and DVC has written it down
                    self._reload(name)
                    continue
                if self._remote:
                    self._fetch(stage)
                with self._repo.lock, nothing_executed():
                    stage.run()
                self._note(name)
            except NotCached:
                missing[name] = "its results are not in the run cache: did its inputs change while it ran?"
            except DvcException as error:
                missing[name] = f"its results could not be taken: {' '.join(str(error).split())}"
        return missing

    def _note(self, stage: str) -> None:
        self._taken[stage] = self._stages[stage]

    def _reload(self, stage: str) -> None:
        with self._repo.lock:  # in which DVC writes dvc.lock
            self._repo._reset()
            (self._stages[stage],) = self._repo.stage.collect(stage)

    def write(self, after: float = 0.0) -> None:
        """Write down in `dvc.lock` what was taken, all of it or nothing; a run that is killed before takes it again.

        Nothing is written where the last time was less than `after` seconds ago.
        """
        if time.monotonic() - self._written < after:
            return
        if self._taken:
            with self._repo.lock:
                lock, partial = Path(self._repo.root_dir, LOCK_FILE), Path(self._repo.tmp_dir, f"{LOCK_FILE}.part")
                partial.unlink(missing_ok=True)
                if lock.exists():
                    shutil.copyfile(lock, partial)
                Lockfile(self._repo, str(partial)).dump_stages(list(self._taken.values()))
                os.replace(partial, lock)
            self._taken.clear()
        self._written = time.monotonic()

    def reduced(self, stage: str) -> tuple[str, str]:
        """Return texts of a `dvc.yaml` and a `dvc.lock` that name the stage and the outputs of those that it needs.

        DVC reads all stages there are several times to run one of them: a second of CPU time where there are a hundred.
        """

        def made(entry: Mapping[str, Any]) -> dict[str, Any]:
            return {key: value for key, value in entry.items() if key not in ("deps", "params")}

        stages: dict[str, Any] = {}
        locked: dict[str, Any] = {}
        for number, name in enumerate(sorted(self.upstream[stage])):
            if isinstance(needed := self._stages[name], PipelineStage):  # others are .dvc files, which git knows
                (entry,) = to_pipeline_file(needed).values()
                stages[f"needed {number}"] = made(entry)
                locked[f"needed {number}"] = made(to_single_stage_lockfile(needed))
        group, member = split_group_name(stage)
        (own,) = to_pipeline_file(self._stages[stage]).values()
        stages[group] = {"foreach": [member], "do": own} if member else own
        literal = json.dumps({"stages": stages}, ensure_ascii=False).replace("${", "\\\\${")  # DVC has filled all in
        return literal, json.dumps({"schema": "2.0", "stages": locked}, ensure_ascii=False)

    def _fetch(self, stage: Any) -> None:
        runs.patiently(self._repo, lambda: runs.fetch(self._repo, stage))

    def stays_here(self, stage: str) -> bool:
        """Whether DVC's run cache cannot carry what the stage makes or what it needs."""
        return not _travels(self._stages[stage]) or not all(out.use_cache for out in self._needed(stage))

    def inputs(self, stage: str) -> list[str]:
        """List the outputs of other stages that a worker has to have, as paths in the workspace."""
        return [os.path.relpath(out.fs_path, self._repo.root_dir) for out in self._needed(stage)]

    def _needed(self, stage: str) -> list[Any]:
        paths = [dep.fs_path for dep in self._stages[stage].deps]
        made = [out for needed in sorted(self.upstream[stage]) for out in self._stages[needed].outs]
        return [out for out in made if any(_overlap(out.fs_path, path) for path in paths)]

    def expected(self, stage: str) -> dict[str, str]:
        """Return the digest of each file and folder that the stage reads, as they are here."""
        found = {dep.def_path: dep.hash_info.value for dep in self._stages[stage].deps}
        return {path: digest for path, digest in found.items() if isinstance(digest, str)}  # parameters have none


def _travels(stage: Any) -> bool:
    """Whether DVC keeps runs of the stage: not without inputs, nor with an output that stays or is in no cache."""
    kept = all((out.use_cache or out.is_metric or out.is_plot) and not out.persist for out in stage.outs)
    return bool(stage.deps and stage.outs) and kept and not stage.is_callback and not stage.always_changed


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
