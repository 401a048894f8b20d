"""A small corpus, vocabulary, teacher and parameter file for the tests of `teacher` and `distill`."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from ruamel.yaml import YAML
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

WORDS = [f"word{number}" for number in range(150)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROOT = Path(__file__).resolve().parents[1]


def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: index for index, word in enumerate(SPECIAL + WORDS)})


def write_text(path: Path, rows: int, seed: int = 0) -> list[str]:
    """Write a parquet file of paragraphs whose words follow a skewed distribution; returns them."""
    generator = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, len(WORDS) + 1)
    lengths = generator.integers(0, 40, rows)
    texts = [" ".join(generator.choice(WORDS, length, p=share / share.sum())) for length in lengths]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), path)
    return texts


def config(**changes: Any) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    return BertConfig(**{"vocab_size": len(SPECIAL + WORDS), "max_position_embeddings": 32, **sizes, **changes})


def teacher(**changes: Any) -> BertForMaskedLM:
    """A random BERT whose biases and LayerNorms are random too, so that no copy can be right by chance."""
    torch.manual_seed(3)
    model = BertForMaskedLM(config(**changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "LayerNorm.weight" not in name:
                parameter.normal_(std=0.1)
    return model


def make_project(folder: Path, **changes: Any) -> dict[str, Any]:
    """Lay out params.yaml (with dotted `changes`), corpus and models/bert in a folder; returns the parameters."""
    write_text(folder / "data/corpus/train.parquet", 60)
    write_text(folder / "data/corpus/dev.parquet", 15, seed=1)
    (folder / "data/corpus/dataset.json").write_text('{"name": "corpus", "source": "embedded"}')
    model = teacher()
    model.save_pretrained(folder / "models/bert")
    tokenizer().save_pretrained(folder / "models/bert")
    return write_params(folder, **changes)


def write_params(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write the default profile's parameters, cut to tiny sizes, with `changes` such as distill__learning_rate=1.0."""
    yaml = YAML(typ="safe", pure=True)
    values: dict[str, Any] = yaml.load(ROOT / "profiles/tiny.yaml")
    settings: dict[str, Any] = {
        "epochs": 1.0,
        "batch_size": 4,
        "hardware__threads": 1,
        "hardware__precision": "fp32",
        "distill__teacher_layers": [0, 2],
        "distill__block_length": 16,
        "distill__effective_batch_size": 8,
        "distill__eval_blocks": 6,
        "distill__evaluations": 3,
        "distill__dropout": None,
        "quality_eval__blocks": 4,
        "teacher__dropout": None,
        "teacher__init": "config",
        "teacher__revision": None,
        "teacher__config": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
        },
        "teacher__vocab_size": 200,
        "teacher__pretrain_steps": 6,
        "teacher__head_steps": 3,
        "teacher__batch_size": 4,
        "teacher__block_length": 16,
        **changes,
    }
    for key, value in settings.items():
        *sections, name = key.split("__")
        target = values
        for section in sections:
            target = target[section]
        target[name] = value
    with (folder / "params.yaml").open("w") as stream:
        yaml.dump(values, stream)
    return values


def results(folder: Path) -> dict[str, bytes]:
    """What a run leaves that may not depend on interruptions, by path."""
    files = [
        *(folder / "models/distilbert").rglob("*"),
        *(folder / "plots").rglob("*"),
        folder / "metrics/distill.json",
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}
