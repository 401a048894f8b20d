"""Pronouns that only understanding resolves: WNLI."""

from random import Random

from stages.sources.world.facts import is_held_out
from stages.sources.world.lexicon import LEXICONS, load_table, sentence
from stages.sources.world.sampling import Draft

_TABLE = load_table("schemas")


def coreference(rng: Random, label: int) -> Draft:
    """Make a WNLI row: does the claim put the right one in the place of the pronoun (1)."""
    about = rng.choice(("people", "things"))
    words = _two_people(rng) if about == "people" else _two_things(rng)
    template, *endings, claim = rng.choice(_TABLE[about]["schemas"])
    target = rng.randrange(2)
    words["e"] = endings[target]
    words["r"] = words["ab"[target if label else 1 - target]]
    row = {"sentence1": sentence(template, words), "sentence2": sentence(claim, words), "label": label}
    return Draft(row, is_held_out(f"{template}|{words['a']}|{words['b']}"))


def _two_people(rng: Random) -> dict[str, str]:
    """Draw two people of one sex, so that the pronoun alone does not tell them apart."""
    people = LEXICONS["everyday"]["person"]
    first = rng.choice(people)
    second = rng.choice([person for person in people if person.he == first.he and person is not first])
    return {"a": first.name, "b": second.name, "p": first.he}


def _two_things(rng: Random) -> dict[str, str]:
    first, second = rng.choice(_TABLE["things"]["pairs"])
    return {"a": first, "b": second}
