"""The tables of the exported models: how close ONNX and INT8 are to fp32, and what the task models score."""

from stages.reporting.compressed import CORPUS, Measurements
from stages.reporting.exported import STUDENT, Exported, Row
from stages.reporting.labels import decimals, number, percent
from stages.reporting.markdown import DASH, Footnotes, section
from stages.reporting.published import load_published

TORCH = {"baseline": "quantized", "pruned": "combined"}  # the student of the same variant in PyTorch's INT8
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


def _closeness(found: Measurements) -> str:
    notes, rows = Footnotes(), []
    for model in (model for model in found.onnx if not model.int8):
        row, int8 = found.onnx[model], found.onnx[model._replace(int8=True)]
        torch = found.quantize.get(TORCH[model.checkpoint], {}) if model.task == STUDENT else {}
        mark = (
            notes.mark(model.task, row["note"]) if "note" in row else notes.mark("held-out text", found.notes[CORPUS])
        )
        cells = [f"{row['max_abs_difference']:.1e}", percent(int8["relative_error"])]
        cells += [percent(int8.get("agreement", int8.get("top1_agreement")))]
        cells += [percent(torch.get(key)) for key in ("logit_error", "top1_agreement")]
        rows.append([str(model) + mark, *cells])
    error, same = "INT8, relative error", "INT8, same answer"
    header = [
        "Model",
        "ONNX fp32, largest difference",
        *(f"{run} {what}" for run in RUNTIMES for what in (error, same)),
    ]
    return section("How close ONNX and INT8 are", CLOSENESS, header, rows, notes)


def _tasks(found: Measurements) -> list[str]:
    notes = Footnotes()
    rows = [_task_row(model, row, notes) for model, row in found.onnx.items() if model.task != STUDENT]
    if not rows:
        return []
    header = ["Model", "MiB", "scores", "equal answers", "change", "its 95 % interval", "published", "here - published"]
    return [section("Task models in ONNX Runtime", TASKS, header, rows, notes)]


def _task_row(model: Exported, row: Row, notes: Footnotes) -> list[str]:
    task, digits = model.task, decimals(model.task)
    scores = ", ".join(f"{key} {number(value, digits)}" for key, value in row["scores"].items())
    first = str(model) + notes.mark(task, row["note"])
    cells = [first, number(row["size_mb"], 2), scores, percent(row.get("agreement"))]
    if "difference" not in row:
        return [*cells, *[DASH] * 4]
    change, low, high = (f"{row[key]:+z.{digits}f}" for key in ("difference", "difference_low", "difference_high"))
    cells += [change, f"{low} to {high}"]
    if task not in PEERS or model.checkpoint == "pruned":
        return [*cells, DASH, DASH]
    theirs = load_published("peers")["int8_onnxruntime_xeon"][PEERS[task]]
    published = (theirs["int8"] - theirs["fp32"]) / (1 if task == "SQuAD" else 100)
    return [*cells, f"{published:+z.{digits}f}", f"{row['difference'] - published:+z.{digits}f}"]
