"""The tables of the exported models: how close ONNX and INT8 are to fp32, and what the task models score."""

from collections.abc import Mapping
from typing import Any

from stages.finetuning.tasks import file_prefix
from stages.reporting.cells import TASK_ORDER
from stages.reporting.compressed import CORPUS, Measurements
from stages.reporting.labels import decimals, number, percent
from stages.reporting.markdown import DASH, Footnotes, section
from stages.reporting.published import load_published

Row = Mapping[str, Any]
STUDENT = "distilbert"
PREFIXES = {STUDENT: "student", **{file_prefix(task): task for task in TASK_ORDER}}  # of file names
CHECKPOINTS = {"baseline": "", "pruned": ", pruned"}
TORCH = {f"{STUDENT}_baseline": "quantized", f"{STUDENT}_pruned": "combined"}  # the same model in PyTorch's INT8
RUNTIMES = ("ONNX", "PyTorch")
CLOSENESS = (
    "Of the logits: the largest absolute difference of ONNX from PyTorch, both in fp32; the norm of INT8's difference "
    "from fp32 in the same runtime over fp32's norm; and how often INT8 gives the same most probable token or answer."
)
TASKS = (
    "Fine-tuned models on the whole dev set through ONNX Runtime; INT8 beside fp32 of the same model. Published is the "
    "change of the same score in a model of the published size, fine-tuned on the whole task, on a Xeon server: Intel "
    "Neural Compressor's list of validated models."
)
PEERS = {"SST-2": "sst2", "SQuAD": "squad_f1"}  # whose change was published


def render(found: Measurements) -> list[str]:
    """Write both sections; that of the task models only if any were exported."""
    return [_closeness(found), *_tasks(found)]


def task_of(name: str) -> str:
    """Return the task of a file's model as tables show it; `student` for DistilBERT itself."""
    return PREFIXES[name.partition("_")[0]]


def label(name: str) -> str:
    """Return a file's name as tables show it: `SST-2, pruned, INT8` for sst2_pruned_int8."""
    _, checkpoint, *int8 = name.split("_")
    return task_of(name) + CHECKPOINTS[checkpoint] + (", INT8" if int8 else "")


def _closeness(found: Measurements) -> str:
    notes, rows = Footnotes(), []
    for name in sorted((name for name in found.onnx if not name.endswith("_int8")), key=_student_first):
        int8, torch = found.onnx[f"{name}_int8"], found.quantize.get(TORCH.get(name, ""), {})
        task, row = task_of(name), found.onnx[name]
        mark = notes.mark(task, row["note"]) if "note" in row else notes.mark("held-out text", found.notes[CORPUS])
        cells = [f"{row['max_abs_difference']:.1e}", percent(int8["relative_error"])]
        cells += [percent(int8.get("agreement", int8.get("top1_agreement")))]
        cells += [percent(torch.get(key)) for key in ("logit_error", "top1_agreement")]
        rows.append([label(name) + mark, *cells])
    error, same = "INT8, relative error", "INT8, same answer"
    header = [
        "Model",
        "ONNX fp32, largest difference",
        *(f"{run} {what}" for run in RUNTIMES for what in (error, same)),
    ]
    return section("How close ONNX and INT8 are", CLOSENESS, header, rows, notes)


def _student_first(name: str) -> tuple[bool, str]:
    return not name.startswith(STUDENT), name


def _tasks(found: Measurements) -> list[str]:
    notes = Footnotes()
    rows = [_task_row(name, row, notes) for name, row in found.onnx.items() if "scores" in row]
    if not rows:
        return []
    header = ["Model", "MiB", "scores", "equal answers", "change", "its 95 % interval", "published", "here - published"]
    return [section("Task models in ONNX Runtime", TASKS, header, rows, notes)]


def _task_row(name: str, row: Row, notes: Footnotes) -> list[str]:
    task = task_of(name)
    digits = decimals(task)
    scores = ", ".join(f"{key} {number(value, digits)}" for key, value in row["scores"].items())
    first = label(name) + notes.mark(task, row["note"])
    cells = [first, number(row["size_mb"], 2), scores, percent(row.get("agreement"))]
    if "difference" not in row:
        return [*cells, *[DASH] * 4]
    change, low, high = (f"{row[key]:+z.{digits}f}" for key in ("difference", "difference_low", "difference_high"))
    cells += [change, f"{low} to {high}"]
    if task not in PEERS or "pruned" in name:
        return [*cells, DASH, DASH]
    theirs = load_published("peers")["int8_onnxruntime_xeon"][PEERS[task]]
    published = (theirs["int8"] - theirs["fp32"]) / (1 if task == "SQuAD" else 100)
    return [*cells, f"{published:+z.{digits}f}", f"{row['difference'] - published:+z.{digits}f}"]
