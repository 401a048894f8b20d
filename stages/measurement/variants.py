"""The variants of the student that are measured: names, files and how they are run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.core.artifacts import read_json
from stages.core.errors import UserError

Runtime = Literal["torch", "onnx"]


@dataclass(frozen=True)
class Variant:
    """A row of the compression table: a checkpoint folder for PyTorch, or an ONNX file with its tokenizer elsewhere."""

    name: str
    runtime: Runtime
    path: Path
    checkpoint: Path
    stage: str

    @property
    def weights(self) -> Path:
        """The file whose size counts."""
        return self.path / "model.safetensors" if self.runtime == "torch" else self.path

    def require(self) -> "Variant":
        """Raise UserError if the weights or the checkpoint's configuration are missing; else return itself."""
        for path in (self.weights, self.checkpoint / "config.json"):
            if not path.is_file():
                raise UserError(f"{path}: not found; `dvc repro {self.stage}` makes it")
        return self

    def require_positions(self, tokens: int) -> None:
        """Raise UserError if the model cannot take a row of so many tokens."""
        config = self.checkpoint / "config.json"
        positions = read_json(config).get("max_position_embeddings")
        if positions is None:
            raise UserError(f"{config}: max_position_embeddings: missing; delete {config.parent} and run `dvc repro`")
        if tokens > positions:
            raise UserError(f"params.yaml: speed_bench: {tokens} tokens exceed the model's {positions} positions")


def _torch(name: str, folder: str, stage: str) -> Variant:
    return Variant(name, "torch", Path("models", folder), Path("models", folder), stage)


def _onnx(name: str, checkpoint: str) -> Variant:
    file = Path("models/onnx", f"distilbert_{name}.onnx")
    return Variant(f"onnx_{name}", "onnx", file, Path("models", checkpoint), "onnx-export")


VARIANTS = (
    _torch("baseline", "distilbert", "distill"),
    _torch("quantized", "quantized", "quantize"),
    _torch("pruned", "pruned", "prune"),
    _torch("combined", "combined", "quantize"),
    _onnx("baseline", "distilbert"),
    _onnx("baseline_int8", "distilbert"),
    _onnx("pruned", "pruned"),
    _onnx("pruned_int8", "pruned"),
)
ONNX_MODELS = tuple(variant.weights.stem for variant in VARIANTS if variant.runtime == "onnx")
