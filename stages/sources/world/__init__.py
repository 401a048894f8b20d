"""An embedded, seeded world: English text and GLUE-, IMDb- and SQuAD-shaped tasks about it, without any download."""

from functools import partial
from typing import Any

from stages.sources.world.acceptability import judgement
from stages.sources.world.entailment import answerability, inference, paraphrase, recognition, similarity
from stages.sources.world.opinions import opinion, review
from stages.sources.world.questions import duplicate
from stages.sources.world.sampling import Maker, draw_rows
from stages.sources.world.schemas import coreference
from stages.sources.world.spans import reading
from stages.sources.world.text import paragraph

__all__ = ["generate"]

# Each task: what makes its rows, and its labels in their proportions.
_TASKS: dict[str, tuple[Maker, tuple[int, ...]]] = {
    "CoLA": (judgement, (0, 0, 1, 1, 0, 1, 1)),
    "SST-2": (opinion, (0, 1)),
    "MRPC": (paraphrase, (0, 0, 1, 1, 0, 1, 1)),
    "STS-B": (similarity, (0, 1, 2, 3, 4, 5)),
    "QQP": (duplicate, (0, 0, 1, 1, 0, 1, 0)),
    "MNLI": (inference, (0, 1, 2)),
    "QNLI": (answerability, (0, 1)),
    "RTE": (recognition, (0, 1)),
    "WNLI": (coreference, (0, 1)),
    "imdb": (review, (0, 1)),
    "squad": (reading, (0,)),
}


def generate(
    seed: int, corpus_paragraphs: int, train_rows: int, dev_rows: int
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Write the world's data sets as {data set: {split: rows}}, with columns as on the Hugging Face hub.

    The same arguments give the same rows in any process, and every split of every data set has a random stream of its
    own. Raises UserError if a data set cannot give that many distinct rows.
    """
    splits = (("train", train_rows, False), ("dev", dev_rows, True))
    corpus = (("train", corpus_paragraphs, False), ("validation", max(1, corpus_paragraphs // 20), True))
    data = {"corpus": {name: draw_rows(paragraph, (0,), n, f"{seed}/corpus/{name}", held) for name, n, held in corpus}}
    for task, (maker, labels) in _TASKS.items():
        data[task] = {name: draw_rows(maker, labels, n, f"{seed}/{task}/{name}", held) for name, n, held in splits}
    court = partial(inference, genre="court")
    data["MNLI"]["dev_mismatched"] = draw_rows(
        court, _TASKS["MNLI"][1], dev_rows, f"{seed}/MNLI/dev_mismatched", held_out=True
    )
    for row in data["squad"]["train"]:
        row["answers"] = {key: values[:1] for key, values in row["answers"].items()}
    return data
