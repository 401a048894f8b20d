"""Every command in the documents is run by a test, or stands here with the reason why not.

Of `dvc repro` and `dvc exp run` elsewhere than in the walk, which would take hours, tests check that DVC takes the
command, that the parameters are right and that the stages which would run are those meant. docs/results.md is no
instruction but a record of what was run.
"""

import re
import shlex
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from clone import ROOT, Project, finished_project
from documents import COMMAND, block_commands, blocks, inline_commands
from dvc.cli.parser import get_main_parser
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from stages.core.params import validate

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/experiments.md", "docs/migration.md", "docs/scaling.md")
OTHER_BLOCKS = ("dvc.yaml  ", "resources:")  # a list of files, and a piece of params.yaml
WALK = "docs/experiments.md"  # whose commands test_experiments.py runs one after the other
NOT_IN_THE_WALK = ("source .venv/bin/activate",)
WHOLE = "test_pipeline.py::test_a_clone_becomes_tables_and_the_second_run_does_nothing"
RAY_CLIENT = "test_two_hosts.py::test_the_head_of_the_pipeline_need_not_be_a_machine_of_the_cluster"
HERE = (  # run below, in this order
    "dvc metrics show",
    "dvc metrics diff",
    "dvc metrics show metrics/glue/*.json --md",
    "dvc exp show",
    "make profile NAME=size",
    "make profile NAME=mini",
    "make profile NAME=paper",
    "make profile NAME=reproduction",
    'make profile NAME="paper dry"',
    'make profile NAME="reproduction dry"',
    "make profile NAME=tiny",
    "make readme",
    "dvc commit --force distill",
    "make clean",
)
ELSEWHERE = {
    "make repro": "test_experiments.py::test_an_experiment_runs_what_it_changes",
    'make repro TARGETS="quality-eval speed-bench report"': WHOLE,
    "make remote": "test_remotes.py::test_a_fresh_clone_has_nothing_left_to_run",
    "make push": "test_remotes.py::test_a_fresh_clone_has_nothing_left_to_run",
    "make pull": "test_remotes.py::test_a_fresh_clone_has_nothing_left_to_run",
    "make push REPAIR=1": "test_remotes.py::test_a_damaged_object_is_named_not_used_and_replaced",
    "dvc remote modify --local storage": "test_remotes.py::test_a_fresh_clone_has_nothing_left_to_run",
    "make publish REPO=owner/name": "test_cards.py::test_make_publish_sends_only_if_asked",
    "make publish REPO=owner/name UPLOAD=1": "test_cards.py::test_make_publish_sends_only_if_asked",
    "make publish REPO=owner/name UPLOAD=1 PRIVATE=1": "test_cards.py::test_make_publish_sends_only_if_asked",
    "make publish REPO=owner/name MODEL=task_models/SST-2/pruned": "test_cards.py::test_a_task_model_is_published",
    "make repro JOBS=2": "test_cluster.py::test_the_real_pipeline_gives_the_metrics_of_a_serial_run",
    "make repro JOBS=4": "test_cluster.py::test_the_real_pipeline_gives_the_metrics_of_a_serial_run",  # of two
    "make repro ADDRESS=ray://head:10001": RAY_CLIENT,
}
NOT_RUN = {
    "make test": "runs this very test",
    "source .venv/bin/activate": "the tests have an environment already",
    "make android-bench": "needs a phone and the Android NDK; test_android_bench.py runs its steps over adb",
    "make fetch": "needs the hub; test_models_lookup.py fetches from a stand-in",
    "HF_HOME=/big/disk/hf dvc repro download": "needs the hub and another disk",
    "dvc cache dir /big/disk/dvc": "needs another disk",
    "dvc gc --workspace": "asks before it deletes",
    "export RAY_AUTH_MODE=token": "needs a Ray cluster; test_two_hosts.py starts one with a token",
    "ray start": "needs a Ray cluster; test_two_hosts.py starts one",
    "python benchmarks/simulated_cluster.py": "measures for minutes; test_cluster.py runs what it starts",
    "python benchmarks/waiting.py": "measures for minutes; test_waiting.py has what chooses between its ways",
    "torchrun --nnodes 2": "needs two machines with GPUs; test_processes.py runs it with two processes on one",
    "make lint": "CI runs it",
    "pre-commit install": "changes the hooks of this clone",
    "pytest tests/test_losses.py": "this very run has these tests",
    "make test-long": "runs these very tests",
}
PLACEHOLDER = re.compile(r"<[^<>]+>|\.\.\.")
EVALUATIONS = {"glue-eval@*", "imdb-eval@*", "squad-eval@*"}
# What -S makes DVC run first; what follows from it depends on the results.
SELECTED: dict[str, set[str]] = {
    "-S epochs=3": {"distill", "prune", "report"},
    "-S epochs=3 distill": {"distill"},
    "-n longer -S epochs=3": {"distill", "prune"},
    "-S distill.student_init=random": {"distill", "prune", "quality-eval"},
    "-S distill.alpha_cosine=0": {"distill", "prune", "quality-eval"},
    "-S teacher.init=google-bert/bert-base-uncased -S teacher.revision=86b5e0934494bd15c9632b12f734a8a67f723594"
    " -S teacher.pretrain_steps=0 -S teacher.head_steps=0 -S 'distill.teacher_layers=[0,2,4,7,9,11]'": {
        "teacher",
        "distill",
        "prune",
        "quality-eval",
        "report",
    },
    "-S 'seeds=[42,43,44]'": {"*-eval@*-43", "*-eval@*-44", "report"},
    "-S 'seeds=[42,43,44,45,46]' glue-eval": {f"glue-eval@*-{seed}" for seed in (43, 44, 45, 46)},
    "-S '+glue.tasks.MRPC.learning_rate=5e-5'": {"glue-eval@*-MRPC-42", "report"},
    "-S '+glue.tasks.QNLI.epochs=5.0'": {"glue-eval@*-QNLI-42", "report"},
    "-S '~glue.tasks.WNLI'": {"report"},
    "-S prune.amount=0.7": {"prune"},
    "-S prune.method=structured -S prune.amount=0.5 -S prune.recovery_epochs=0.5": {"prune"},
    "-S speed_bench.threads=2 -S speed_bench.rounds=5": {"size-bench", "speed-bench"},
    "-S speed_bench.stsb_warmup=20 speed-bench": {"speed-bench"},
    "-S speed_bench.threads=2 speed-bench": {"size-bench", "speed-bench"},
    "-S speed_bench.stsb_samples=1000 speed-bench": {"speed-bench"},
    "-S '+models.pruned=models/pruned'": {"*-eval@pruned-*", "report", "speed-bench"},
    "-S '+models.released=models/released'": {"*-eval@released-*", "report", "speed-bench"},
    "-S '+models.released=models/released' glue-eval": {"glue-eval@released-*"},
    "-S download.glue.max_train_rows=2000": {"download"},
    "-S download.glue.max_train_rows=1000 glue-eval": {"download"},
    "-S download.squad.max_train_rows=10000 squad-eval": {"download"},
    "-S download.squad.max_dev_rows=10000 squad-eval": {"download"},
    "-S download.corpus.max_train_rows=100000 distill": {"download"},
    "-S 'download.corpus.files={train: [wiki.parquet, books.txt], dev: [held_out.txt]}' distill": {"download"},
    "-S batch_size=16 -S distill.effective_batch_size=16 distill": {"distill"},
    "-S finetune.epochs=2.0": {*EVALUATIONS, "onnx-eval@*"},
    "-S finetune.batch_size=16 glue-eval": {"glue-eval@*"},
    "-S imdb.tasks.IMDb.epochs=2.0 imdb-eval": {"imdb-eval@*"},
    "-S squad.tasks.SQuAD.batch_size=2 squad-eval": {"squad-eval@*"},
    "-S '+squad.tasks.SQuAD.eval_batch_size=8' squad-eval": {"squad-eval@*"},
}
EXPERIMENT = "dvc exp run "


def commands(document: str) -> list[str]:
    return block_commands(document) + inline_commands(document)


def begins(command: str, known: str) -> bool:
    return command == known or command.startswith(f"{known} ")


def is_selection(command: str) -> bool:
    return command.startswith(("dvc repro", "dvc --wait-for-lock repro", f"{EXPERIMENT}-"))


EVERY = sorted({command for document in DOCUMENTS for command in commands(document)})
WALKED = [command for command in block_commands(WALK) if command not in NOT_IN_THE_WALK]
SELECTIONS = [
    command
    for command in EVERY
    if is_selection(command) and not PLACEHOLDER.search(command) and command not in block_commands(WALK)
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_is_of_commands_or_known_to_be_none(document: str) -> None:
    others = [block for block in blocks(document) if not COMMAND.match(block)]
    assert [block for block in others if not block.startswith(OTHER_BLOCKS)] == []


@pytest.mark.parametrize("command", EVERY)
def test_every_command_is_run_by_a_test_or_has_a_reason(command: str) -> None:
    if PLACEHOLDER.search(command):  # tells the form of a command
        command = re.sub(r"(^| )\S*=$", "", PLACEHOLDER.split(command)[0]).strip()
    named = any(begins(one, command) for one in (*WALKED, *HERE))  # `dvc exp apply`, say, which is run with a name
    reasons = any(begins(command, known) for known in NOT_RUN)
    assert named or reasons or command in ELSEWHERE or command in SELECTIONS or begins(command, "make remote"), (
        f"`{command}` is run by no test: add it to one of the lists of {Path(__file__).name}"
    )


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_tests_that_run_commands_exist(test: str) -> None:
    file, name = test.split("::")
    assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text()


def test_the_lists_name_only_commands_of_the_documents() -> None:
    known = (*HERE, *ELSEWHERE, *NOT_RUN, *(EXPERIMENT + rest for rest in SELECTED))
    assert [one for one in known if not any(begins(command, one) for command in EVERY)] == []


@pytest.mark.parametrize("command", [one for one in EVERY if one.startswith("dvc ") and not PLACEHOLDER.search(one)])
def test_dvc_knows_every_command_and_option(command: str) -> None:
    if command not in ("dvc exp apply", "dvc exp branch"):  # which are named without what they take
        get_main_parser().parse_args(shlex.split(command)[1:])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return finished_project(tmp_path_factory.mktemp("clone"), {"models/released/stand-in": "{}"})


@pytest.fixture
def selects(done: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], set[str]]:
    """Give the stages that a command would run, with its changes of the parameters made as DVC makes them."""
    monkeypatch.chdir(done.folder)

    def stages(command: str) -> set[str]:
        arguments = get_main_parser().parse_args(shlex.split(command)[1:])
        done.run("git", "checkout", "-q", ".")
        if changes := getattr(arguments, "set_param", None):
            apply_overrides("params.yaml", changes)
        validate(YAML(typ="safe", pure=True).load(Path("params.yaml")))
        options: dict[str, Any] = {"force": arguments.force, "single_item": arguments.single_item}
        with Repo() as repo:
            return {stage.addressing for stage in repo.reproduce(arguments.targets, dry=True, **options)}

    return stages


@pytest.mark.long
@pytest.mark.parametrize("command", SELECTIONS)
def test_a_change_selects_its_stages(command: str, selects: Callable[[str], set[str]]) -> None:
    found = selects(command)
    if command.startswith(EXPERIMENT):
        patterns = SELECTED[command.removeprefix(EXPERIMENT)]
        assert {stage for stage in found if not any(fnmatch(stage, pattern) for pattern in patterns)} == set()
        assert {pattern for pattern in patterns if not any(fnmatch(stage, pattern) for stage in found)} == set()
    elif " -f " in command:
        assert command.split()[-1] in found
    else:
        assert found == set()


@pytest.mark.long
def test_short_commands_run(done: Project) -> None:
    done.run("git", "checkout", "-q", ".")
    printed = {command: done.shell(command) for command in HERE}
    assert "metrics/glue/distilbert.json" in printed["dvc metrics show"]
    assert "profile paper+dry" in printed['make profile NAME="paper dry"']
    assert (done.folder / "params.yaml").read_text() == (ROOT / "profiles/tiny.yaml").read_text()
    outputs = done.run("dvc", "list", ".", "--dvc-only", "--recursive").split()
    kept = [path for path in outputs if (done.folder / path).exists()]
    assert kept
    assert all(Path(path).parts[0] in ("metrics", "plots") for path in kept)
    done.run("dvc", "checkout")  # as the document says, the cache still has what `make clean` removed
    assert all((done.folder / path).exists() for path in outputs)


def test_the_ablation_s_published_column_is_the_paper_s_and_its_differences_add_up() -> None:
    keys = {
        "distill.alpha_distill=0": "no_distill_loss",
        "distill.alpha_cosine=0": "no_cosine_loss",
        "distill.alpha_mlm=0": "no_mlm_loss",
        "distill.student_init=random": "random_init",
    }
    published = YAML(typ="safe").load(ROOT / "published/paper.yaml")["ablation"]
    table = re.search(r"<!-- ablation:begin -->\n(.*)<!-- ablation:end -->", (ROOT / WALK).read_text(), re.DOTALL)
    assert table
    _, parameters, ours, _, theirs, differences = zip(
        *([cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]), strict=True
    )
    assert [keys[parameter.strip("`")] for parameter in parameters] == list(published)
    assert [float(one) for one in theirs] == list(published.values())
    assert [float(one) for one in differences] == [
        pytest.approx(float(here) - there, abs=0.006) for here, there in zip(ours, published.values(), strict=True)
    ]
