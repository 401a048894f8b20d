"""The words of the world, and how a template becomes a sentence."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|u(?!s[ei]|ni))")


@dataclass(frozen=True)
class Word:
    """A word that fills a slot of one kind, with what is generally known about it."""

    name: str
    kind: str = ""  # what it is a case of: a guitar is a "musical instrument", Paris is in "France"
    synonym: str = ""
    opposite: str = ""
    plain: str = ""  # of "taller": "tall"; of "rain": "wet"
    does: str = ""  # of an occupation: "makes bread"
    below: str = ""  # of a number: the next smaller one in its list
    above: str = ""
    he: str = ""  # of a person: the pronoun

    def __str__(self) -> str:
        return self.name

    @property
    def his(self) -> str:
        """The possessive pronoun of a person."""
        return "his" if self.he == "he" else "her"

    @property
    def himself(self) -> str:
        """The reflexive pronoun of a person."""
        return "himself" if self.he == "he" else "herself"

    def reworded(self) -> "Word":
        """Give the word under its synonym, if it has one."""
        return Word(self.synonym, self.kind, self.name, self.opposite) if self.synonym else self


Lexicon = Mapping[str, tuple[Word, ...]]


def load_table(name: str) -> dict[str, Any]:
    """Read one of the TOML files beside this module."""
    return tomllib.loads((Path(__file__).parent / f"{name}.toml").read_text(encoding="utf-8"))


def sentence(template: str, words: Mapping[str, object]) -> str:
    """Fill the slots of a template, choose between "a" and "an", and start with a capital."""
    text = _ARTICLE.sub(r"\1n ", template.format_map(words))
    return text[0].upper() + text[1:]


def _nouns(kinds: Mapping[str, list[str]]) -> tuple[Word, ...]:
    pairs = ((kind, *entry.partition("|")[::2]) for kind, entries in kinds.items() for entry in entries)
    return tuple(Word(name, kind=kind, synonym=synonym) for kind, name, synonym in pairs)


def _people(pronouns: Mapping[str, list[str]]) -> tuple[Word, ...]:
    return tuple(Word(name, kind="person", he=pronoun) for pronoun, names in pronouns.items() for name in names)


def _numbers(names: list[str]) -> tuple[Word, ...]:
    """Words for all numbers but the smallest and the largest, which lack a neighbour."""
    triples = zip(names, names[1:], names[2:], strict=False)
    return tuple(Word(name, kind="number", below=below, above=above) for below, name, above in triples)


def _common(table: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """Yield the slot kinds that all genres share."""
    for kind, entries in table["shared"].items():
        yield kind, _nouns(entries)
    for kind in ("mood", "state"):
        yield kind, tuple(Word(n, kind=kind, synonym=s, opposite=o) for n, s, o in table["graded"][kind])
    for kind in ("trait", "weather"):
        yield kind, tuple(Word(n, kind=kind, plain=p, opposite=o) for n, p, o in table["graded"][kind])
    yield "job", tuple(Word(n, kind="job", does=does) for n, does in table["occupations"]["job"])
    for kind, names in table["numbers"].items():
        yield kind, _numbers(names)


def _load() -> dict[str, Lexicon]:
    table = load_table("words")
    lexicons: dict[str, Lexicon] = {}
    for genre in ("everyday", "court"):
        own = {kind: _people(rows) if kind == "person" else _nouns(rows) for kind, rows in table[genre].items()}
        lexicons[genre] = dict(_common(table)) | own
    return lexicons


LEXICONS = _load()
