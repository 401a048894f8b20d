"""Whose terms a checkpoint is under: those of the weights it began with and of the data it was trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from stages.core.artifacts import read_json

# Of weights that a profile starts from, by the hub's names for licences; NOTICE has the links.
LICENSES: Mapping[str, str] = {
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "google-bert/bert-base-uncased": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
}

# Of data, by the repository of text or the name of a task; NOTICE has the sources.
TERMS: Mapping[str, str] = {
    "Salesforce/wikitext": "text of Wikipedia: CC BY-SA 3.0 and GFDL, attribution and share-alike",
    "wikimedia/wikipedia": "CC BY-SA 3.0 / 4.0 and GFDL, attribution and share-alike",
    "CoLA": "no explicit licence; used under fair use for research",
    "MNLI": "mixed: mostly the Open American National Corpus licence, fiction under CC BY 3.0, CC BY-SA 3.0 or similar",
    "MRPC": "Microsoft Research licence, for research; no redistribution beyond its terms",
    "QNLI": "derived from SQuAD: CC BY-SA 4.0",
    "QQP": "Quora's terms of service: non-commercial use",
    "RTE": "from the PASCAL and TAC entailment challenges; for research",
    "SST-2": "no explicit licence; for research",
    "STS-B": "each source under its own terms",
    "WNLI": "CC BY 4.0",
    "SQuAD": "CC BY-SA 4.0",
    "IMDb": "no explicit licence; made for research",
}
PERMISSIVE = frozenset({"Apache-2.0"})  # terms of data that ask nothing that the weights' own licence does not
GENERATED = "the generated English world of distilbert-dvc"
OWN_FILES = "files of one's own"
# Keys of a card's head, beside those of the hub, by which descendants know what they were made of.
BEGAN_WITH = "began_with"
TRAINED_ON = "trained_on"


@dataclass(frozen=True)
class Source:
    """Weights or data that a checkpoint was made of: what, its id on the hub if it has one, and its terms."""

    name: str
    terms: str
    repository: str | None = None


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint begins with: the weights that it descends from, and what those were trained on here."""

    weights: Source | None = None
    data: tuple[Source, ...] = ()

    @property
    def base_model(self) -> str | None:
        """The model on the hub that it descends from."""
        return self.weights.repository if self.weights else None

    def license(self, data: Iterable[Source]) -> str | None:
        """Return the licence, by the hub's names, of what begins with this and was trained on `data`.

        None if it is not known; `other` if data has terms of its own, as `card.md.j2` then lists.
        """
        known = LICENSES.get(self.base_model or "")
        return known if known is None or all(source.terms in PERMISSIVE for source in data) else "other"


def lineage_of_init(model: str) -> Lineage:
    """Begin with a model of the hub, or with a folder: one of the pipeline's, or weights of one's own."""
    folder = Path(model)
    if folder.is_dir():
        own = Source(f"weights of the folder {folder.resolve().name}", "whatever those weights are under")
        lineage = lineage_of_folder(folder)
        return lineage if lineage != Lineage() else Lineage(own)
    terms = LICENSES.get(model) or f"whatever the card of {model} says"
    return Lineage(Source(f"weights of {model}", terms, model))


def lineage_of_folder(folder: Path) -> Lineage:
    """Read what the pipeline's card in a checkpoint folder says of its descent; nothing where there is none."""
    card = folder / "README.md"
    known: dict[str, Any] = (metadata_load(card) or {}) if card.is_file() else {}
    weights = known.get(BEGAN_WITH)
    data = tuple(Source(**source) for source in known.get(TRAINED_ON, ()))
    return Lineage(Source(**weights) if weights else None, data)


def sources_of_data(folder: Path) -> list[Source]:
    """Name what a folder that `download` wrote holds, with its terms, from its `dataset.json`."""
    record = read_json(folder / "dataset.json")
    return [_source(record["name"], origin) for origin in (record, *record.get("and_also", ()))]


def _source(name: str, origin: Mapping[str, Any]) -> Source:
    if origin["source"] == "embedded":
        return Source(f"{name} of {GENERATED}", "Apache-2.0")
    if origin["source"] == "files":
        return Source(f"{name} from {OWN_FILES}", "whatever those files are under")
    repository = origin["repository"]
    terms = TERMS.get(repository) or TERMS.get(name) or f"whatever the card of {repository} says"
    return Source(f"{name} of {repository} at revision {origin['revision']}", terms, repository)


def repositories(data: Iterable[Source]) -> list[str]:
    """Return the ids of the data that are on the hub, sorted."""
    return sorted({source.repository for source in data if source.repository})
