"""The card of a task model's folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.cards.card import Card
from stages.cards.checkpoints import onnx_figures
from stages.cards.terms import lineage_of_folder, sources_of_data
from stages.deployment.tasks import SQUAD, data_folder, outputs_of
from stages.finetuning.tasks import TASKS

USE = """```python
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("{folder}/model_int8.onnx")
text = Tokenizer.from_file("{folder}/tokenizer.json").encode({text})
inputs = {{"input_ids": [text.ids], "attention_mask": [text.attention_mask]}}
{targets} = session.run({outputs}, inputs)
```

Batch and length are free."""
TEXTS = {1: '"A film to see twice."', 2: '"Who wrote it?", "Ada wrote the first program."'}  # by their number in a row


def task_card(
    folder: Path,
    parameters: Mapping[str, Any],
    task: str,
    checkpoint: Path,
    fp32: Mapping[str, Any],
    int8: Mapping[str, Any],
) -> Card:
    """Describe a checkpoint's model for a task; `fp32` and `int8` are the figures of its files."""
    outputs, texts = outputs_of(task), 2 if task == SQUAD else len(TASKS[task].text)
    targets = ", ".join(outputs) if len(outputs) > 1 else f"({outputs[0]},)"
    figures = {"fp32": onnx_figures(fp32), "INT8": onnx_figures(int8)}
    return Card(
        folder,
        "onnx-eval",
        f"The model of `{checkpoint}` fine-tuned on {task}, for ONNX Runtime, in fp32 and INT8.",
        parameters,
        lineage_of_folder(checkpoint),
        sources_of_data(data_folder(task)),
        {f"{kind}: {key}": value for kind, found in figures.items() for key, value in found.items()},
        usage=USE.format(folder=folder, text=TEXTS[texts], targets=targets, outputs=json.dumps(list(outputs))),
        library="onnx",
        title=f"{task}, {checkpoint.name}",
    )
