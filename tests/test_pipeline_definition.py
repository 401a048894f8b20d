"""dvc.yaml says the truth: what a stage imports and which parameters it reads are what it declares."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.params import Params

ROOT = Path(__file__).resolve().parents[1]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
GRIDS = ("glue-eval", "imdb-eval", "squad-eval")


def module_file(name: str) -> Path | None:
    path = ROOT / Path(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@cache
def imports(path: Path) -> frozenset[Path]:
    """The project's own modules that a file imports, anywhere in it, and the packages that they lie in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                file = module_file(".".join(parts[:depth])) if parts[0] == "stages" else None
                if file:
                    found.add(file)
    return frozenset(found)


def closure(path: Path) -> set[Path]:
    seen, todo = set(), [path]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo.extend(imports(file))
    return seen


def stage_file(stage: str) -> Path:
    return ROOT / "stages" / f"{stage.replace('-', '_')}.py"


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_modules_that_the_stage_imports(stage: str) -> None:
    declared = [ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith("stages")]
    missing = {
        str(file.relative_to(ROOT))
        for file in closure(stage_file(stage))
        if not any(file == dep or dep in file.parents for dep in declared)
    }
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_exists_and_is_used(stage: str) -> None:
    used = closure(stage_file(stage))
    for dep in STAGES[stage]["deps"]:
        if dep.startswith("stages"):
            assert any(ROOT / dep in (file, *file.parents) for file in used), dep


@pytest.mark.parametrize("stage", STAGES)
def test_params_cover_the_sections_that_the_stage_reads(stage: str) -> None:
    declared = {str(name).split(".")[0] for name in STAGES[stage].get("params", [])}
    suite = stage.removesuffix("-eval")
    for file in closure(stage_file(stage)) - {ROOT / "stages/core/params.py", ROOT / "stages/profile.py"}:
        no_cells = stage not in GRIDS and file.parent.name == "finetuning"  # of which only parts are used
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and "params" in (
                getattr(node.value, "id", None),
                None if no_cells else getattr(node.value, "attr", None),  # of `cell.params`
            ):
                if stage in GRIDS and node.attr in {"glue", "imdb", "squad"} - {suite}:
                    continue  # the cells' common code reads the section of the suite that it is run for
                if node.attr in Params.model_fields.keys() - {"resources"}:  # which change no result
                    assert node.attr in declared, f"{file.name} reads params.{node.attr}"


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"report"}))
def test_dvc_keeps_the_stage_s_runs(stage: str) -> None:
    """An output that is neither in the cache nor a metric or plot keeps DVC from noting a run in its run cache."""
    assert [out for out in STAGES[stage].get("outs", []) if isinstance(out, dict)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_runs_the_stage_s_module(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:3] == ["python", "-m", f"stages.{stage.replace('-', '_')}"]


def test_evaluations_are_matrices_over_model_task_and_seed() -> None:
    for stage in GRIDS:
        assert list(STAGES[stage]["matrix"]) == ["model", "task", "seed"]


def test_no_import_circles_and_the_library_never_imports_a_stage() -> None:
    commands = {stage_file(stage) for stage in STAGES}
    library = [file for file in (ROOT / "stages").rglob("*.py") if file not in commands]
    for file in library:
        assert not imports(file) & commands, file
        for other in imports(file) - {file}:
            packages = {parent / "__init__.py" for parent in file.parents}
            assert file not in imports(other) or other in packages or file.name == "__init__.py", (file, other)
