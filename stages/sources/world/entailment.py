"""Pairs of statements: MRPC, STS-B, MNLI, RTE and QNLI."""

from random import Random

from stages.sources.world.facts import Fact, draw_fact, draw_swappable, is_held_out, related
from stages.sources.world.sampling import Draft

ENTAILMENT, NEUTRAL, CONTRADICTION = range(3)


def paraphrase(rng: Random, label: int) -> Draft:
    """Make an MRPC row: do two sentences say the same (1)."""
    fact, other = _same(rng) if label else _different(rng)
    first, second = fact.say_twice(rng, other) if fact.frame is other.frame else (fact.say(rng), other.say(rng))
    return Draft({"sentence1": first, "sentence2": second, "label": label}, fact.held_out)


def _same(rng: Random) -> tuple[Fact, Fact]:
    fact = draw_fact(rng)
    return fact, fact.reworded() if rng.random() < 0.5 else fact


def _different(rng: Random) -> tuple[Fact, Fact]:
    """Draw a fact, and another one that shares its people, most of its words, or all of them in another order."""
    draw = rng.random()
    if draw < 0.1:
        fact = draw_swappable(rng)
        return fact, fact.swapped()
    fact = draw_fact(rng)
    if draw < 0.5:
        return fact, related(rng, fact) if draw < 0.3 else draw_fact(rng)
    other = _alter(rng, fact, near=draw < 0.7)
    return fact, _alter(rng, other, near=False) if draw > 0.75 else other


def _alter(rng: Random, fact: Fact, near: bool) -> Fact:
    return fact.changed(rng, rng.choice(list(fact.words)), near)


def similarity(rng: Random, level: int) -> Draft:
    """Make an STS-B row: how much of their meaning two sentences share, from 0 (nothing) to 5 (all)."""
    fact = draw_fact(rng)
    other, score = _at_level(rng, fact, level)
    first, second = fact.say_twice(rng, other) if fact.frame is other.frame else (fact.say(rng), other.say(rng))
    return Draft({"sentence1": first, "sentence2": second, "label": score}, fact.held_out)


def _at_level(rng: Random, fact: Fact, level: int) -> tuple[Fact, float]:
    """Draw a fact that differs from the given one the more the lower the level, with the score of the pair."""
    if level == 5:
        return (fact.reworded(), 4.8) if rng.random() < 0.5 else (fact, 5.0)
    if level == 0:
        return draw_fact(rng, avoid=fact.frame.name), 0.0
    if level == 1 and rng.random() < 0.5:
        return related(rng, fact), 1.2
    slots = rng.sample(list(fact.words), min(5 - level, len(fact.words)))
    other, score = fact, 5.0
    for slot in slots:
        near = rng.random() < 0.5
        other = other.changed(rng, slot, near)
        score -= 0.8 if near else 1.2
    return other, round(max(score, 0.6), 1)


def inference(rng: Random, label: int, genre: str = "everyday") -> Draft:
    """Make an MNLI row: does the hypothesis follow (0), is it open (1), or excluded (2)."""
    fact = draw_fact(rng, genre)
    premise, hypothesis = _hypothesis(rng, fact, label)
    return Draft({"premise": premise, "hypothesis": hypothesis, "label": label}, fact.held_out)


def _hypothesis(rng: Random, fact: Fact, label: int) -> tuple[str, str]:
    premise, retold = fact.say_twice(rng)
    draw = rng.random()
    if label == ENTAILMENT:
        return premise, retold if draw < 0.45 else fact.fill(rng.choice(fact.frame.weaker))
    if label == CONTRADICTION:
        if draw < 0.85 or not fact.frame.exclusive:
            return premise, fact.fill(rng.choice(fact.frame.opposite))
        other = fact.changed(rng, rng.choice(fact.frame.exclusive), near=True)
        return fact.say_twice(rng, other)
    if draw < 0.05:
        return fact.fill(rng.choice(fact.frame.weaker)), premise
    if draw < 0.4:
        return premise, related(rng, fact).say(rng)
    return premise, fact.fill(rng.choice(fact.frame.open))


def recognition(rng: Random, label: int) -> Draft:
    """Make an RTE row: does the second text follow from the first, which may say more (0), or not (1)."""
    fact = draw_fact(rng)
    premise, hypothesis = _hypothesis(rng, fact, label and rng.choice((NEUTRAL, CONTRADICTION)))
    if label and rng.random() < 0.5:
        hypothesis = related(rng, fact).say(rng)
    if rng.random() < 0.1:
        extra = related(rng, fact)
        premise = " ".join(rng.sample([premise, extra.fill(rng.choice(extra.frame.weaker))], 2))
    return Draft({"sentence1": premise, "sentence2": hypothesis, "label": label}, fact.held_out)


def answerability(rng: Random, label: int) -> Draft:
    """Make a QNLI row: does the sentence answer the question (0) or not (1)."""
    fact = draw_fact(rng)
    slot = rng.choice(list(fact.frame.questions))
    question = rng.choice(fact.frame.questions[slot])
    sentence = _unhelpful(rng, fact, slot, question) if label else fact.say(rng)
    asked = fact.fill(question)
    return Draft({"question": asked, "sentence": sentence, "label": label}, is_held_out(asked))


def _unhelpful(rng: Random, fact: Fact, slot: str, question: str) -> str:
    """Write a sentence near the fact that leaves open what is in the slot asked for."""
    draw = rng.random()
    if draw < 0.3:
        return related(rng, fact).say(rng)
    silent = [template for template in fact.frame.open if f"{{{slot}" not in template]
    if draw < 0.6 and silent:
        return fact.fill(rng.choice(silent))
    others = [other for other in fact.words if f"{{{other}" in question]
    return fact.changed(rng, rng.choice(others), near=True).say(rng)
