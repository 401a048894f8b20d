"""Uploads a model with its card to the hub: `make publish MODEL=distilbert REPO=owner/name`.

Without `UPLOAD=1` it only shows what would be sent. The card that is sent is the folder's own with the last report's
tables of that model's scores, sizes and speed.
"""

import argparse
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

from stages.cards.card import NAME as CARD
from stages.core.entry import run
from stages.core.errors import UserError
from stages.reporting.folding import unfold
from stages.reporting.readme import TABLES
from stages.sources.models import MODEL_ID

MODELS = Path("models")
SCORES = ("GLUE", "IMDb", "SQuAD 1.1", "What DistilBERT retains")
VARIANTS = ("Size", "Speed and memory", "Quality", "How close ONNX and INT8 are")
SECTIONS = {
    "distilbert": (*SCORES, *VARIANTS),
    "pruned": VARIANTS,
    "quantized": VARIANTS,
    "combined": VARIANTS,
    "onnx": VARIANTS,
}
TASK_MODELS = Path("task_models")
OF_TASK_MODELS = ("How close ONNX and INT8 are", "Task models in ONNX Runtime")
HOW_MADE = "Of the last report of the pipeline that made it."
HOW_SCORED = (
    f"{HOW_MADE} Task scores are of copies that were fine-tuned on each task; these are not part of this repository."
)


@dataclass(frozen=True)
class Upload:
    """What would be sent: the files of a folder, its card replaced by a longer one."""

    repository: str
    files: Sequence[Path]
    card: str

    def operations(self) -> list[CommitOperationAdd]:
        """Return the files as one commit of the hub's client."""
        return [
            CommitOperationAdd(CARD, self.card.encode()),
            *(CommitOperationAdd(file.name, str(file)) for file in self.files),
        ]


def prepare(model: str, repository: str, models: Path = MODELS, tables: Path = TABLES) -> Upload:
    """Gather the files and the card of a folder: `models/<model>`, or that of a task model, named by its path.

    Raises UserError if either is missing or the name is no hub id.
    """
    if not MODEL_ID.fullmatch(repository):
        raise UserError(f"REPO={repository}: expected owner/name")
    of_a_task = TASK_MODELS.name in Path(model).parts
    folder = models.parent / model if of_a_task else models / model
    if not (folder / CARD).is_file():
        there = sorted(path.parent for path in (models.parent / TASK_MODELS).glob(f"*/*/{CARD}"))
        known = sorted(path.parent.name for path in models.glob(f"*/{CARD}"))
        known += [path.relative_to(models.parent).as_posix() for path in there]
        raise UserError(f"{folder}: no checkpoint with a card; `dvc repro` makes them, now here: {', '.join(known)}")
    if not tables.is_file():
        raise UserError(f"{tables}: not found; `dvc repro report` makes it")
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != CARD)
    card = (folder / CARD).read_text(encoding="utf-8").replace(f'"{folder.as_posix()}"', f'"{repository}"')
    card = card.replace(f'"{folder.as_posix()}/', '"')  # its files, wherever they are downloaded to
    text = tables.read_text(encoding="utf-8")
    found, about = unfold(text), text.partition("###")[0].strip()
    sections, how = (OF_TASK_MODELS, HOW_MADE) if of_a_task else (SECTIONS.get(model, SCORES), HOW_SCORED)
    shown = [f"### {title}\n\n{found[title]}" for title in sections if title in found]
    return Upload(repository, files, "\n\n".join([card.strip(), "## Results", about, how, *shown]) + "\n")


def send(upload: Upload, private: bool, api: HfApi) -> str:
    """Make the repository where there is none, send all files as one commit, and return its address.

    Raises UserError where the hub is away or refuses.
    """
    try:
        api.create_repo(upload.repository, private=private, exist_ok=True)
        made = api.create_commit(
            upload.repository, upload.operations(), commit_message="Checkpoint and card by distilbert-dvc"
        )
    except LocalTokenNotFoundError as error:
        raise UserError(f"{upload.repository}: no token of the hub; run `hf auth login` once") from error
    except HFValidationError as error:
        raise UserError(f"REPO={upload.repository}: {' '.join(str(error).split())}") from error
    except HfHubHTTPError as error:
        reason = " ".join(str(error.server_message or error).split())
        raise UserError(
            f"{upload.repository}: the hub refused ({error.response.status_code}: {reason}); a token that may write "
            "there is needed, `hf auth login` stores one"
        ) from error
    except (
        OSError,
        RuntimeError,
        httpx2.TransportError,
        OfflineModeIsEnabled,
    ) as error:  # RuntimeError: hf-xet's network faults
        raise UserError(f"{api.endpoint}: cannot be reached ({error}); nothing was published") from error
    return str(made.commit_url)


def is_reported() -> bool:
    """Whether the report and all that it tells of are of the present weights, parameters and code."""
    return not subprocess.run(["dvc", "status", "--quiet"], check=False).returncode


def main() -> None:
    """Show what the command line names, and send it where that was asked for."""
    parser = argparse.ArgumentParser(description="Upload a model with its card to the hub.")
    parser.add_argument("--model", required=True, help="folder in models/, or task_models/<task>/<model>")
    parser.add_argument("--repository", required=True, help="owner/name on the hub")
    parser.add_argument("--upload", action="store_true", help="send it; without, only show what would be sent")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    arguments = parser.parse_args()
    upload = prepare(arguments.model, arguments.repository)
    if not is_reported():
        raise UserError("the last report is not of these weights (`dvc status` says why); `make repro` first")
    for file in upload.files:
        print(f"{file.stat().st_size / 2**20:10.2f} MiB  {file}")
    print(f"{len(upload.card.encode()) / 2**20:10.2f} MiB  {CARD}, the card:\n\n{upload.card}")
    if arguments.upload:
        print(f"published: {send(upload, arguments.private, HfApi())}")
    else:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        print(f"nothing was sent; with UPLOAD=1 this goes to {endpoint}/{upload.repository}")


if __name__ == "__main__":
    run(main)
