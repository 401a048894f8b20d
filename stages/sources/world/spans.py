"""Questions whose answer is a span of a short text: SQuAD."""

import hashlib
import re
from random import Random
from typing import Any

from stages.sources.world.facts import Fact, draw_fact, related
from stages.sources.world.sampling import Draft


def reading(rng: Random, label: int) -> Draft:
    """Make a SQuAD row: a context that states the fact asked for, mostly among others (the label is not used)."""
    fact = draw_fact(rng)
    slot = rng.choice(list(fact.frame.questions))
    statement, question = fact.say(rng), fact.fill(rng.choice(fact.frame.questions[slot]))
    others = rng.sample(_distractors(rng, fact), rng.choice((0, 0, 1, 1, 2)))
    context = " ".join(rng.sample([statement, *others], 1 + len(others)))
    answers = _references(context, statement, fact.words[slot].name)
    row = {"title": fact.frame.name.capitalize(), "context": context, "question": question, "answers": answers}
    return Draft({"id": hashlib.sha256(repr(row).encode()).hexdigest()[:24], **row}, fact.held_out)


def _distractors(rng: Random, fact: Fact) -> list[str]:
    """State a like fact in which every word differs, and another one about the same people."""
    other = fact
    for slot in fact.words:
        other = other.changed(rng, slot, near=True)
    return [other.say(rng), related(rng, fact).say(rng)]


def _references(context: str, statement: str, answer: str) -> dict[str, list[Any]]:
    """Find the answer as it stands in the statement, alone and, where there is one, with its article."""
    start = context.index(statement)
    window = context[start : start + len(statement)]
    patterns = [rf"{article}\b{re.escape(answer)}\b" for article in ("", r"\b(?:an?|the) ")]
    matches = [re.search(pattern, window, re.IGNORECASE) for pattern in patterns]
    found = [(match.group(), start + match.start()) for match in matches if match]
    return {"text": [text for text, _ in found], "answer_start": [begin for _, begin in found]}
