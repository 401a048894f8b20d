"""Running text for pre-training: paragraphs that say everything at least twice, in different words."""

from random import Random

from stages.sources.world.acceptability import judgement
from stages.sources.world.facts import Fact, draw_fact, is_held_out, related
from stages.sources.world.opinions import review
from stages.sources.world.questions import duplicate
from stages.sources.world.sampling import Draft


def paragraph(rng: Random, label: int) -> Draft:
    """Make a corpus row: a paragraph of one of several kinds (the label is not used)."""
    write = rng.choices((_story, _talk, _review, _remarks), weights=(6, 2, 1, 1))[0]
    genre = "court" if rng.random() < 0.15 else "everyday"
    text = write(rng, genre)
    return Draft({"text": text}, is_held_out(text))


def _retell(rng: Random, fact: Fact) -> tuple[str, str]:
    """Say the fact in two sentences: plainly, and in other words or in part."""
    first, second = fact.say_twice(rng, fact.reworded() if rng.random() < 0.3 else fact)
    weaker = fact.fill(rng.choice(fact.frame.weaker))
    return first, rng.choice((second, weaker))


def _story(rng: Random, genre: str) -> str:
    """Tell two or three facts about the same people, and then all of them again."""
    fact = draw_fact(rng, genre)
    facts = [fact, *(related(rng, fact) for _ in range(rng.choice((1, 2))))]
    told, retold = zip(*(_retell(rng, fact) for fact in facts), strict=True)
    return " ".join([*told, *rng.sample(retold, len(retold))])


def _talk(rng: Random, genre: str) -> str:
    """Tell a fact, ask about it, and answer in a full sentence."""
    fact = draw_fact(rng, genre)
    question = rng.choice(rng.choice(list(fact.frame.questions.values())))
    first, second = fact.say_twice(rng)
    return " ".join([first, fact.fill(rng.choice(fact.frame.open)), fact.fill(question), second])


def _review(rng: Random, genre: str) -> str:
    return str(review(rng, rng.randrange(2)).row["text"])


def _remarks(rng: Random, genre: str) -> str:
    """Ask a question in two ways, and go on with unconnected sentences."""
    row = duplicate(rng, 1).row
    return " ".join([row["question1"], row["question2"], *(judgement(rng, 1).row["sentence"] for _ in range(2))])
