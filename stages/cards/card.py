"""The card of one checkpoint: its text, and the YAML head that the hub reads."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from ruamel.yaml import YAML

from stages.cards.terms import BEGAN_WITH, TRAINED_ON, Lineage, Source, repositories
from stages.core.params import Params

TEMPLATE = Path(__file__).with_name("card.md.j2")
NAME = "README.md"
SMALL = 1e-3  # below which four decimals would not tell a figure
PLAIN_USE = """```python
from transformers import pipeline

fill = pipeline("fill-mask", model="{folder}")
fill("The sky is [MASK].")
```"""
OWN_CLASS_USE = """Its classes are the pipeline's own; in a clone of it:

```python
import stages.modeling  # registers them
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
```"""


@dataclass(frozen=True)
class Card:
    """What is to be said about a model's folder; nothing that differs from run to run, such as times."""

    folder: Path  # as users name it, such as models/distilbert
    stage: str
    summary: str
    parameters: Mapping[str, Any]  # of the stage, as in params.yaml
    lineage: Lineage
    data: Sequence[Source]
    figures: Mapping[str, Any] = field(default_factory=dict)
    own_classes: bool = False  # whether loading it takes the pipeline's model classes
    usage: str | None = None  # None: as a masked language model
    library: str = "transformers"
    title: str | None = None  # None: the folder's name

    def __str__(self) -> str:
        """Lay the card out."""
        data = list(dict.fromkeys((*self.lineage.data, *self.data)))
        usage = self.usage or (OWN_CLASS_USE if self.own_classes else PLAIN_USE).format(folder=self.folder)
        weights, license = self.lineage.weights, self.lineage.license(data)
        head: dict[str, Any] = {
            "language": "en",
            "license": license,
            "license_name": "of-its-weights-and-data" if license == "other" else None,
            "library_name": self.library,
            "pipeline_tag": "fill-mask" if self.library == "transformers" else None,
            "base_model": self.lineage.base_model,
            "datasets": repositories(data) or None,
            "tags": ["distilbert-dvc"],
            BEGAN_WITH: asdict(weights) if weights else None,
            TRAINED_ON: [asdict(source) for source in data],
        }
        card = ModelCard.from_template(
            ModelCardData(**head),
            template_path=str(TEMPLATE),
            title=self.title or self.folder.name,
            summary=self.summary,
            stage=self.stage,
            usage=usage,
            figures={name: _text(value) for name, value in self.figures.items()},
            parameters=_yaml(self.parameters),
            sources=[*([weights] if weights else []), *data],
        )
        return re.sub(r"\n{3,}", "\n\n", str(card.content)).strip() + "\n"

    def write(self, folder: Path) -> None:
        """Write the card into the folder that is to become the model's."""
        (folder / NAME).write_text(str(self), encoding="utf-8")


def shown_parameters(params: Params, *sections: str) -> dict[str, Any]:
    """Return what is set in the sections that a card shows, and the hardware, which the weights depend on too.

    A teacher's folder is named without the path to it, which is nobody else's business.
    """
    shown = params.model_dump(mode="json", include={*sections, "hardware"}, exclude_none=True)
    if "teacher" in shown and Path(shown["teacher"]["init"]).is_dir():
        shown["teacher"]["init"] = Path(shown["teacher"]["init"]).resolve().name
    return shown


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}" if value == 0 or abs(value) >= SMALL else f"{value:.1e}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _yaml(values: Mapping[str, Any]) -> str:
    stream, yaml = StringIO(), YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.dump(dict(values), stream)
    return stream.getvalue().strip()
