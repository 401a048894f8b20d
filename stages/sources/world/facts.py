"""Facts: a frame (who gave what to whom) with words in its slots, and what can be said and asked about it."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from stages.sources.world.lexicon import LEXICONS, Word, load_table, sentence


@dataclass(frozen=True)
class Frame:
    """A kind of fact, with the templates that say, weaken, extend, deny and ask for it."""

    name: str
    slots: Mapping[str, str]
    forms: tuple[str, ...]
    weaker: tuple[str, ...]
    open: tuple[str, ...]
    opposite: tuple[str, ...]
    questions: Mapping[str, tuple[str, ...]]
    swap: tuple[str, ...]
    exclusive: tuple[str, ...]

    @property
    def people(self) -> list[str]:
        """The slots that people fill, the protagonist first."""
        return [slot for slot, kind in self.slots.items() if kind == "person"]


@dataclass(frozen=True)
class Fact:
    """A frame whose slots are filled with words of one genre."""

    frame: Frame
    words: Mapping[str, Word]
    genre: str

    def fill(self, template: str) -> str:
        """Write a template of the frame as a sentence about this fact."""
        return sentence(template, self.words)

    def say(self, rng: Random) -> str:
        """Say the fact in one of its forms."""
        return self.fill(rng.choice(self.frame.forms))

    def say_twice(self, rng: Random, other: "Fact | None" = None) -> tuple[str, str]:
        """Say this fact, and the other one (default: the same) in another form."""
        first, second = rng.sample(self.frame.forms, 2)
        return self.fill(first), (other or self).fill(second)

    def reworded(self) -> "Fact":
        """Replace every word that has a synonym; the fact stays the same."""
        return replace(self, words={slot: word.reworded() for slot, word in self.words.items()})

    def swapped(self) -> "Fact":
        """Make another fact by letting the two slots that the frame names exchange their words."""
        first, second = self.frame.swap
        return replace(self, words={**self.words, first: self.words[second], second: self.words[first]})

    def changed(self, rng: Random, slot: str, near: bool) -> "Fact":
        """Make another fact: one slot gets a word of the same case (near: Paris, Lyon) or of another."""
        old = self.words[slot]
        taken = {name for word in self.words.values() for name in (word.name, word.synonym)}
        free = [w for w in LEXICONS[self.genre][self.frame.slots[slot]] if not {w.name, w.synonym} & taken - {""}]
        fitting = [w for w in free if (w.kind == old.kind) == near]
        return replace(self, words={**self.words, slot: rng.choice(fitting or free)})

    @property
    def held_out(self) -> bool:
        """Whether this combination of words is kept for evaluation."""
        return is_held_out("|".join([self.frame.name, *(word.name for word in self.words.values())]))


def is_held_out(key: str) -> bool:
    """Assign a quarter of all keys to evaluation, the same in every process."""
    return zlib.crc32(key.encode()) % 4 == 0


def _frame(name: str, table: Mapping[str, Any]) -> Frame:
    lists = ("forms", "weaker", "open", "opposite", "swap", "exclusive")
    texts = {key: tuple(table.get(key, ())) for key in lists}
    questions = {slot: tuple(asked) for slot, asked in table["questions"].items()}
    return Frame(name=name, slots=table["slots"], questions=questions, **texts)


FRAMES = {name: _frame(name, table) for name, table in load_table("frames").items()}


def draw_fact(
    rng: Random, genre: str = "everyday", frames: Sequence[Frame] = (), cast: Sequence[Word] = (), avoid: str = ""
) -> Fact:
    """Draw a fact, from some frames only or not from one, whose first people are the given cast."""
    frame = rng.choice([frame for frame in frames or FRAMES.values() if frame.name != avoid])
    words: dict[str, Word] = dict(zip(frame.people, cast, strict=False))
    taken = {word.name for word in (*words.values(), *cast)}
    for slot, kind in frame.slots.items():
        while slot not in words:
            word = rng.choice(LEXICONS[genre][kind])
            if word.name not in taken:
                words[slot] = word
                taken.add(word.name)
    return Fact(frame, {slot: words[slot] for slot in frame.slots}, genre)


def draw_swappable(rng: Random, genre: str = "everyday") -> Fact:
    """Draw a fact that says something else when two of its words change places."""
    return draw_fact(rng, genre, [frame for frame in FRAMES.values() if frame.swap])


def related(rng: Random, fact: Fact) -> Fact:
    """Draw a fact of another frame about the same people."""
    return draw_fact(rng, fact.genre, cast=[fact.words[slot] for slot in fact.frame.people], avoid=fact.frame.name)
