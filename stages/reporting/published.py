"""Published figures, for comparison: rows of ours stand beside them only in the convention of their publication."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "published"
NAMES = {"bert": "BERT-base", "distilbert": "DistilBERT", "distilbert_two_step": "DistilBERT, distilled twice"}
PAPER, REPRODUCTION = "Sanh et al. 2019", "reproduction"
PARAMETERS = 66_985_530  # of the student in the published tables of size, speed and quality


@dataclass(frozen=True)
class PublishedRow:
    """A published table row: its figures by column, in the units of the table it belongs to, and their decimals."""

    model: str  # its name among the rows of ours that it compares with
    source: str
    figures: Mapping[str, float]
    digits: int
    note: str = ""
    title: str = ""  # of the model, where it is none of NAMES

    @property
    def label(self) -> str:
        """The row's name in a table."""
        return f"{self.title or NAMES[self.model]}, published: {self.source}"

    def difference(self, ours: Mapping[str, float]) -> dict[str, float]:
        """Return ours minus the published figure of every column that both have."""
        return {name: ours[name] - value for name, value in self.figures.items() if name in ours}


def load_published(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read one file of published figures, `paper`, `reproduction` or `peers`; UserError if it is missing."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"{path}: not found; `git checkout {path.name}` in published/ brings it back")
    values: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return values


def glue_rows(folder: Path = FOLDER) -> list[PublishedRow]:
    """List the reproduction's GLUE rows: fractions, accuracy for MRPC and QQP, Pearson for STS-B."""
    figures = load_published("reproduction", folder)
    cut, full = f"{REPRODUCTION}, 1,000 samples a task", f"{REPRODUCTION}, all samples, median of 5 seeds"
    return [*_rows(figures["glue_1000_samples"], cut, 4), *_rows(figures["glue_full"], full, 4)]


def glue_paper_rows(folder: Path = FOLDER) -> list[PublishedRow]:
    """List the paper's GLUE rows: x100, MRPC and QQP mean of accuracy and F1, STS-B mean of Pearson and Spearman."""
    figures = load_published("paper", folder)
    return _rows(figures["glue"], PAPER, 1, figures["mnli_note"])


def imdb_rows(folder: Path = FOLDER) -> list[PublishedRow]:
    """List accuracies on IMDb as fractions; the paper's are converted from percent."""
    percent = load_published("paper", folder)["imdb"]
    paper = {model: {"accuracy": figures["accuracy"] / 100} for model, figures in percent.items()}
    return [*_rows(paper, PAPER, 4), *_rows(load_published("reproduction", folder)["imdb"], REPRODUCTION, 4)]


def squad_rows(folder: Path = FOLDER) -> list[PublishedRow]:
    """List exact match and F1 on SQuAD 1.1, 0-100."""
    reproduction = load_published("reproduction", folder)["squad"]
    cut = f"{REPRODUCTION}, 10,000 samples"
    return [*_rows(load_published("paper", folder)["squad"], PAPER, 1), *_rows(reproduction, cut, 2)]


def _rows(figures: dict[str, dict[str, float]], source: str, digits: int, note: str = "") -> list[PublishedRow]:
    return [PublishedRow(model, source, row, digits, note) for model, row in figures.items()]


def gains() -> dict[str, dict[str, float]]:
    """Return what the published variants are of their fp32 model: size and speed, by the names of our variants.

    Speed is that of the rows a second in PyTorch, and that of the median latency on the emulator for ONNX.
    """
    found = load_published("reproduction")
    first, phone = found["compression"]["baseline"], found["android"]["distilbert_baseline"]
    torch = {
        name: {"size": row["size_mb"] / first["size_mb"], "speed": row["throughput"] / first["throughput"]}
        for name, row in found["compression"].items()
    }
    onnx = {
        name.replace("distilbert", "onnx"): {
            "size": row["size_mb"] / phone["size_mb"],
            "speed": phone["p50_ms"] / row["p50_ms"],
        }
        for name, row in found["android"].items()
    }
    return torch | onnx
