"""Acceptable and unacceptable sentences: CoLA."""

from random import Random

from stages.sources.world.facts import draw_fact, is_held_out
from stages.sources.world.lexicon import LEXICONS, load_table, sentence
from stages.sources.world.sampling import Draft

_TABLE = load_table("acceptability")
_DETERMINERS = ("a", "an", "the")
_NAMES = {word.name for kind in ("person", "town") for word in LEXICONS["everyday"][kind]}


def judgement(rng: Random, label: int) -> Draft:
    """Make a CoLA row: is the sentence good English (1)."""
    if rng.random() < 0.5:
        return _statement(rng, label)
    phenomenon = rng.choice(list(_TABLE[rng.choice(("basic", "basic", "subtle"))].values()))
    pair = rng.choice(phenomenon)
    text = sentence(pair[0] if label else pair[1], _words(rng))
    # A quarter of the constructions is never trained on; the rest is split by its words.
    return Draft({"sentence": text, "label": label}, is_held_out(pair[0]) or is_held_out(text))


def _statement(rng: Random, label: int) -> Draft:
    """State a fact; if it is to be unacceptable, with words in disorder or without one of its articles."""
    fact = draw_fact(rng)
    text = fact.say(rng)
    return Draft({"sentence": text if label else _garble(rng, text), "label": label}, fact.held_out)


def _garble(rng: Random, text: str) -> str:
    words = text[:-1].split()
    if words[0] not in _NAMES:
        words[0] = words[0].lower()
    garbled = " ".join(_rearranged(rng, words)) + text[-1]
    return garbled[0].upper() + garbled[1:]


def _rearranged(rng: Random, words: list[str]) -> list[str]:
    if rng.random() < 0.6:
        return _disorder(rng, words, rng.choice((4, len(words))))
    articles = [index for index, word in enumerate(words) if word in _DETERMINERS]
    index = rng.choice(articles or range(1, len(words) - 1))
    if articles and rng.random() < 0.5:
        return words[:index] + words[index + 1 :]
    return [*words[:index], words[index + 1], words[index], *words[index + 2 :]]


def _disorder(rng: Random, words: list[str], length: int) -> list[str]:
    """Shuffle some words in a row; names that only change places would leave the sentence acceptable."""
    start = rng.randrange(len(words) - length + 1)
    mixed = [*words[:start], *rng.sample(words[start : start + length], length), *words[start + length :]]
    only_names_moved = [word in _NAMES or word for word in mixed] == [word in _NAMES or word for word in words]
    return _disorder(rng, words, length) if only_names_moved else mixed


def _words(rng: Random) -> dict[str, str]:
    """One word for every slot of the templates."""
    lexicon = LEXICONS["everyday"]
    people = rng.sample(lexicon["person"], 2)
    words = {slot: rng.choice(lexicon[slot]).name for slot in ("town", "day", "event", "food", "room")}
    words |= {"p": people[0].name, "q": people[1].name}
    words["m"] = rng.choice([person for person in lexicon["person"] if person.he == "he"]).name
    words["w"] = rng.choice([person for person in lexicon["person"] if person.he == "she"]).name
    words["n"], words["ns"] = rng.choice(_TABLE["nouns"]["things"])
    words["adj"] = rng.choice(_TABLE["nouns"]["adjectives"])
    return words
