import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tiny_distillation import ROOT, make_project, results, write_params
from transformers import AutoTokenizer, DistilBertForMaskedLM

from stages import distill
from stages.core.errors import UserError
from stages.distillation.checkpoints import Checkpoints

KILLED = (
    "before_any_checkpoint",
    "between_checkpoints",
    "within_a_checkpoint",
    "before_a_checkpoint_is_marked",
    "before_the_outputs",
)
IN_BF16 = "between_checkpoints"  # which of them in bf16 too


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a point of interruption, each run to its end, and `never`; two of them again in bf16."""
    root = tmp_path_factory.mktemp("runs")
    settings = {"epochs": 0.9, "batch_size": 2, "distill__effective_batch_size": 4, "distill__save_minutes": 0.002}
    make_project(root / "never", **settings)
    make_project(root / "bf16/never", hardware__precision="bf16", **settings)
    for point in KILLED:
        shutil.copytree(root / "never", root / point)
    shutil.copytree(root / "bf16/never", root / "bf16" / IN_BF16)
    arguments = [f"{point}={root / point}" for point in ("never", *KILLED)]
    arguments += [f"{point}={root / 'bf16' / point}" for point in ("never", IN_BF16)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/interrupted_runs.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.split()[0] in ("never", *KILLED)] == [
        "never 0",
        *(f"{point} -9" for point in KILLED),
        "never 0",
        f"{IN_BF16} -9",
    ]
    return root


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_and_resumed_run_ends_in_the_same_bytes(runs: Path, point: str) -> None:
    expected, resumed = results(runs / "never"), results(runs / point)
    assert sorted(expected) == sorted(resumed)
    assert [name for name in expected if expected[name] != resumed[name]] == []


def test_a_killed_and_resumed_run_in_bf16_ends_in_the_same_bytes(runs: Path) -> None:
    expected = results(runs / "bf16/never")
    assert results(runs / "bf16" / IN_BF16) == expected
    assert expected["metrics/distill.json"] != results(runs / "never")["metrics/distill.json"]


def test_the_outputs_are_complete_and_load(runs: Path) -> None:
    folder = runs / "never"
    student = DistilBertForMaskedLM.from_pretrained(folder / "models/distilbert")
    encoded = AutoTokenizer.from_pretrained(folder / "models/distilbert")("word1 word2", return_tensors="pt")
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert student(**encoded).logits.shape == (1, 4, 155)
    assert json.loads((folder / "models/distilbert/config.json").read_text())["architectures"] == [
        "DistilBertForMaskedLM"
    ]
    metrics = json.loads((folder / "metrics/distill.json").read_text())
    assert {"mlm_loss", "distill_loss", "cosine_loss", "loss", "accuracy", "teacher_accuracy"} <= set(metrics)
    assert metrics["teacher_layers"] == "0,2"
    assert metrics["parameters"] == student.num_parameters()
    weights = YAML(typ="safe", pure=True).load(folder / "params.yaml")["distill"]
    weighted = sum(weights[f"alpha_{name}"] * metrics[f"{name}_loss"] for name in ("distill", "mlm", "cosine"))
    assert metrics["loss"] == pytest.approx(weighted)
    curve = (folder / "plots/distill/plots/metrics/held_out/loss.tsv").read_text().split("\n")
    steps = [int(line.split("\t")[0]) for line in curve[1:] if line]
    assert (steps[0], len(steps), steps[-1]) == (0, 3, metrics["updates"])
    assert set(json.loads((folder / "data/eval/seconds/distill.json").read_text())) == {"seconds", "tokens_per_second"}


def test_no_epochs_give_the_untrained_student_and_its_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path, epochs=0)
    monkeypatch.chdir(tmp_path)
    distill.main()
    teacher = load_file(tmp_path / "models/bert/model.safetensors")
    layers = "distilbert.transformer.layer", "bert.encoder.layer"
    for ours, theirs in ((0, 0), (1, 2)):
        copied = weights(tmp_path)[f"{layers[0]}.{ours}.ffn.lin1.weight"]
        assert torch.equal(copied, teacher[f"{layers[1]}.{theirs}.intermediate.dense.weight"])
    metrics = json.loads((tmp_path / "metrics/distill.json").read_text())
    assert (metrics["updates"], metrics["tokens"]) == (0, 0)
    curve = (tmp_path / "plots/distill/plots/metrics/held_out/loss.tsv").read_text().split()
    assert float(curve[-1]) == pytest.approx(metrics["loss"])


@pytest.mark.parametrize(("own", "expected"), [(None, 2), (1, 1)])
def test_it_computes_with_its_own_threads_or_the_hardware_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: int | None, expected: int
) -> None:
    make_project(tmp_path, epochs=0.0, hardware__threads=2, distill__threads=own)
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    distill.main()
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    assert used == expected


def test_checkpoints_are_gone_after_success(runs: Path) -> None:
    assert [path for path in (runs / "never/.cache/checkpoints").rglob("*") if path.is_file()] == []


def test_distillation_brings_the_student_closer_to_the_teacher(runs: Path) -> None:
    lines = (runs / "never/plots/distill/plots/metrics/held_out/cosine_loss.tsv").read_text().split()
    assert float(lines[-1]) < float(lines[3])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "models/distilbert/model.safetensors")


def test_accumulated_and_whole_batches_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A large epsilon makes Adam's update follow the gradient, so that rounding is not magnified.
    same = {"distill__effective_batch_size": 16, "distill__adam_epsilon": 1.0, "distill__kl_tokens": "all"}
    trained = []
    for name, batch_size in (("whole", 16), ("split", 4)):
        make_project(tmp_path / name, batch_size=batch_size, distill__learning_rate=1.0, **same)
        settings = tmp_path / name / "models/bert/config.json"
        values = json.loads(settings.read_text()) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        settings.write_text(json.dumps(values))
        monkeypatch.chdir(tmp_path / name)
        distill.main()
        trained.append(weights(tmp_path / name))
    for name, weight in trained[0].items():
        torch.testing.assert_close(weight, trained[1][name], rtol=1e-4, atol=1e-5, msg=name)
    start = load_file(tmp_path / "whole/models/bert/model.safetensors")["bert.embeddings.word_embeddings.weight"]
    moved = trained[0]["distilbert.embeddings.word_embeddings.weight"] - start
    assert moved.abs().max() > 1e-2


def test_a_loss_that_is_not_a_number_stops_with_the_step_and_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path, distill__learning_rate=1e30, distill__max_grad_norm=1e30)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"distill: the loss is not a number by update \d+; lower distill.learning_rate"
    ):
        distill.main()
    assert not (tmp_path / "models/distilbert").exists()
    for checkpoint in (tmp_path / ".cache/checkpoints").rglob("model.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(checkpoint).values())


def test_a_checkpoint_of_other_parameters_is_not_picked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for name in ("fresh", "after"):
        make_project(tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        if name == "after":  # leave complete checkpoints of another learning rate behind
            write_params(tmp_path / name, distill__learning_rate=1e-3)
            with monkeypatch.context() as patch:
                patch.setattr("stages.distillation.distilling.save_student", stop)
                with pytest.raises(KeyboardInterrupt):
                    distill.main()
            assert list((tmp_path / name / ".cache/checkpoints").rglob("complete.json"))
            write_params(tmp_path / name)
        distill.main()
    assert results(tmp_path / "fresh") == results(tmp_path / "after")


def test_the_folder_of_checkpoints_depends_on_parameters_and_files(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a")
    folders = {Checkpoints("s", {"rate": rate}, tmp_path / "weights").folder for rate in (1, 2)}
    (tmp_path / "weights").write_text("b")
    folders.add(Checkpoints("s", {"rate": 1}, tmp_path / "weights").folder)
    folders.add(Checkpoints("t", {"rate": 1}, tmp_path / "weights").folder)
    assert len(folders) == 4


def test_the_latest_complete_checkpoint_counts_and_incomplete_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints("s", root=tmp_path)
    assert checkpoints.latest() is None
    for step in (9, 10, 11):
        (checkpoints.folder / f"checkpoint-{step}").mkdir(parents=True)
        if step < 11:
            Checkpoints.mark_complete(checkpoints.folder / f"checkpoint-{step}", {"running": [step]})
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.name == "checkpoint-10"
    assert Checkpoints.extra(latest) == {"running": [10]}
    assert not (checkpoints.folder / "checkpoint-11").exists()


def test_a_second_training_of_the_same_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []

    def second() -> None:
        with Checkpoints("s", root=tmp_path).held():
            order.append("second")

    waiting = threading.Thread(target=second)
    with Checkpoints("s", root=tmp_path).held():
        waiting.start()
        while "another run trains" not in capsys.readouterr().err:
            time.sleep(0.01)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_a_second_training_that_has_taken_over_keeps_its_checkpoints(tmp_path: Path) -> None:
    first, second = Checkpoints("s", root=tmp_path), Checkpoints("s", root=tmp_path)
    with second.held():
        (second.folder / "checkpoint-1").mkdir()
        first.discard()
        assert (second.folder / "checkpoint-1").is_dir()
    second.discard()
    assert not second.folder.exists()


def test_a_finished_training_takes_abandoned_checkpoints_of_its_stage_along(tmp_path: Path) -> None:
    def left(stage: str, setting: str, days: float) -> Checkpoints:
        checkpoints = Checkpoints(stage, setting, root=tmp_path)
        with checkpoints.held():
            (checkpoints.folder / "checkpoint-1").mkdir()
        age(checkpoints, days)
        return checkpoints

    def age(checkpoints: Checkpoints, days: float) -> None:
        then = time.time() - 24 * 60 * 60 * days
        os.utime(checkpoints.folder, (then, then))

    old, recent, others = left("s", "old", 8), left("s", "recent", 6), left("t", "old", 8)
    without_lock, held = left("s", "without lock", 8), Checkpoints("s", "held", root=tmp_path)
    (without_lock.folder / "lock").unlink()
    age(without_lock, 8)
    holding = (
        "import sys; from pathlib import Path; from stages.distillation.checkpoints import Checkpoints\n"
        "with Checkpoints('s', 'held', root=Path(sys.argv[1])).held():\n    print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (held.folder / "checkpoint-1").mkdir()
        age(held, 8)
        left("s", "this", 0).discard()
        kept = (recent, others, held)
        assert sorted(tmp_path.glob("*/*")) == sorted(checkpoints.folder for checkpoints in kept)
        assert all((checkpoints.folder / "checkpoint-1").is_dir() for checkpoints in kept)
        process.communicate("\n")
    left("s", "this", 0).discard()
    assert not held.folder.exists()
    assert not old.folder.exists()


def test_a_training_that_waited_for_a_discarded_folder_makes_it_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints("s", root=tmp_path)
    inside = []

    def second() -> None:
        with Checkpoints("s", root=tmp_path).held():
            inside.append((checkpoints.folder / "lock").is_file())

    waiting = threading.Thread(target=second)
    with checkpoints.held():
        waiting.start()
        while "another run trains" not in capsys.readouterr().err:
            time.sleep(0.01)
        shutil.rmtree(checkpoints.folder)
    waiting.join()
    assert inside == [True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill__teacher_layers": [0, 7]}, "distill.teacher_layers"),
        ({"distill__block_length": 64}, "distill.block_length 64 exceeds the teacher's 32 positions"),
    ],
)
def test_impossible_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], message: str
) -> None:
    make_project(tmp_path, **changes)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        distill.main()


def test_without_a_teacher_the_stage_to_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(tmp_path)
    shutil.rmtree(tmp_path / "models/bert")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="dvc repro teacher"):
        distill.main()
