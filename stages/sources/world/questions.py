"""Pairs of questions: QQP."""

from collections.abc import Sequence
from random import Random

from stages.sources.world.facts import is_held_out
from stages.sources.world.lexicon import LEXICONS, load_table, sentence
from stages.sources.world.sampling import Draft

_SUBJECTS = load_table("questions")
_RELATIONS = _SUBJECTS.pop("relations")


def duplicate(rng: Random, label: int) -> Draft:
    """Make a QQP row: do two questions ask for the same (1)."""
    first, second, key = _about_two(rng, label) if rng.random() < 0.25 else _about_one(rng, label)
    return Draft({"question1": first, "question2": second, "label": label}, is_held_out(key))


def _about_one(rng: Random, label: int) -> tuple[str, str, str]:
    """Write two questions with the same intent about the same thing, or with one of the two or both changed."""
    subject = rng.choice(list(_SUBJECTS.values()))
    group = rng.choice(subject["things"]).split("|")
    thing = rng.choice(group)
    intent, other = rng.sample(sorted(subject["intents"]), 2)
    first, second = rng.sample(subject["intents"][intent], 2)
    about = thing
    if not label and rng.random() < 0.3:
        other_subject = rng.choice(list(_SUBJECTS.values()))
        about = rng.choice(rng.choice(other_subject["things"]).split("|"))
        second = rng.choice(other_subject["intents"][rng.choice(sorted(other_subject["intents"]))])
    elif not label and len(group) > 1 and rng.random() < 0.4:
        about = rng.choice([near for near in group if near != thing])
    elif not label:
        second = rng.choice(subject["intents"][other])
    return sentence(first, {"x": thing}), sentence(second, {"x": about}), f"{intent}|{thing}"


def _about_two(rng: Random, label: int) -> tuple[str, str, str]:
    """Write two questions about two things, which may change places."""
    symmetric = bool(label) and rng.random() < 0.5
    forms: Sequence[str] = rng.choice(_RELATIONS["symmetric" if symmetric else "ordered"])
    first, second = rng.sample(forms, 2)
    words = _two_of_each(rng)
    exchanged = {"town": "other", "other": "town", "job": "rival", "rival": "job", "item": "thing", "thing": "item"}
    other = words if label and not symmetric else {slot: words[exchanged[slot]] for slot in words}
    return sentence(first, words), sentence(second, other), sentence(forms[0], words)


def _two_of_each(rng: Random) -> dict[str, str]:
    words: dict[str, str] = {}
    for kind, slots in {"town": ("town", "other"), "job": ("job", "rival"), "item": ("item", "thing")}.items():
        pair = rng.sample(LEXICONS["everyday"][kind], 2)
        words |= {slot: word.name for slot, word in zip(slots, pair, strict=True)}
    return words
