"""What the card of each folder of `models/` says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.cards.card import Card
from stages.cards.terms import Lineage, Source, lineage_of_folder, lineage_of_init
from stages.core.params import Prune, Teacher

PRUNED = {
    "magnitude": "of its Linear weights, the smallest ones, are zeros",
    "structured": "of its FFN columns are removed",
    "vocabulary": "of its tokens are removed, from the tokenizer too",
}
ONNX_FIGURES = ("size_mb", "max_abs_difference", "relative_error", "top1_agreement", "agreement")
ONNX_USE = """```python
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("models/onnx/distilbert_baseline_int8.onnx")
text = Tokenizer.from_file("models/onnx/tokenizer_baseline.json").encode("The sky is [MASK].")
inputs = {"input_ids": [text.ids], "attention_mask": [text.attention_mask]}
(logits,) = session.run(["logits"], inputs)
```

Batch and length are free. Files named `pruned` go with `tokenizer_pruned.json`."""


def teacher_card(
    folder: Path, settings: Teacher, parameters: Mapping[str, Any], corpus: Sequence[Source], metrics: Mapping[str, Any]
) -> Card:
    """Describe the teacher; text counts among its data where it was trained on it or made a vocabulary of it."""
    scratch = settings.init == "config"
    origin = "random weights" if scratch else parameters["teacher"]["init"]
    trained = f", trained on masked tokens for {settings.pretrain_steps:,} updates" * bool(settings.pretrain_steps)
    return Card(
        folder,
        "teacher",
        f"A BERT masked language model of {_millions(metrics['parameters'])}: {origin}{trained}. "
        "The teacher that its student is distilled from.",
        parameters,
        Lineage() if scratch else lineage_of_init(settings.init),
        corpus if scratch or settings.pretrain_steps else (),
        metrics,
    )


def student_card(
    folder: Path, parameters: Mapping[str, Any], teacher: Path, corpus: Sequence[Source], metrics: Mapping[str, Any]
) -> Card:
    """Describe the distilled student."""
    return Card(
        folder,
        "distill",
        f"A DistilBERT masked language model of {_millions(metrics['parameters'])}, distilled from a BERT of "
        f"{_millions(metrics['teacher_parameters'])} with the triple loss (masked language modelling, KL divergence "
        "from the teacher, cosine distance of hidden states). It is meant to be fine-tuned.",
        parameters,
        lineage_of_folder(teacher),
        corpus,
        metrics,
    )


def pruned_card(
    folder: Path,
    settings: Prune,
    parameters: Mapping[str, Any],
    student: Path,
    corpus: Sequence[Source],
    metrics: Mapping[str, Any],
    own_classes: bool,
) -> Card:
    """Describe the pruned student."""
    recovery = f", then distilled for {settings.recovery_epochs:g} passes over the corpus" * bool(
        settings.recovery_epochs
    )
    heads = settings.method == "structured" and settings.heads
    what = "of its attention heads and FFN columns are removed" if heads else PRUNED[settings.method]
    return Card(
        folder,
        "prune",
        f"A DistilBERT masked language model, pruned: {settings.amount:.0%} {what}{recovery}. "
        f"{_millions(metrics['parameters'])} are left of {_millions(metrics['parameters_before'])}.",
        parameters,
        lineage_of_folder(student),
        corpus,
        metrics,
        own_classes,
    )


def quantized_card(folder: Path, parameters: Mapping[str, Any], source: Path) -> Card:
    """Describe a model whose Linear layers are INT8."""
    return Card(
        folder,
        "quantize",
        f"The model of `{source}` with its Linear layers in dynamic INT8: weights are rounded once, activations while "
        "it runs.",
        parameters,
        lineage_of_folder(source),
        (),
        own_classes=True,
    )


def onnx_card(
    folder: Path,
    parameters: Mapping[str, Any],
    student: Path,
    metrics: Mapping[str, Mapping[str, Any]],
) -> Card:
    """Describe the folder of ONNX files; `metrics` are the figures of each, by its name without the ending."""
    return Card(
        folder,
        "onnx-export",
        "The student and the pruned student for ONNX Runtime, in fp32 and INT8.",
        parameters,
        lineage_of_folder(student),
        (),
        {f"{name}: {key}": value for name, row in metrics.items() for key, value in onnx_figures(row).items()},
        usage=ONNX_USE,
        library="onnx",
    )


def onnx_figures(row: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the figures of an ONNX file that tell what it is worth, its scores first."""
    return {**row.get("scores", {}), **{key: row[key] for key in ONNX_FIGURES if key in row}}


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} million parameters"
