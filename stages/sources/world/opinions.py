"""What reviewers think: SST-2 (one sentence) and IMDb (a short review)."""

from random import Random

from stages.sources.world.facts import is_held_out
from stages.sources.world.lexicon import LEXICONS, load_table, sentence
from stages.sources.world.sampling import Draft

_TABLE = load_table("opinions")
_POLARITY = ("negative", "positive")
_FLIPS = ("negated", "twisted")


def opinion(rng: Random, label: int) -> Draft:
    """Make an SST-2 row: is the sentence favourable (1)."""
    text, held_out = _remark(rng, label, rng.choice(("plain", "plain", "contrast", "emphatic", "negated", "twisted")))
    return Draft({"sentence": text, "label": label}, held_out)


def _remark(rng: Random, label: int, style: str, work: str = "") -> tuple[str, bool]:
    """Write a sentence with the given verdict; tell whether its construction, or its word in it, is held out."""
    polarity = 1 - label if style in _FLIPS else label
    x, x2 = rng.sample(_TABLE[_POLARITY[polarity]], 2)
    words = {"x": x, "x2": x2, "y": rng.choice(_TABLE[_POLARITY[1 - polarity]])}
    words["work"] = work or rng.choice(_TABLE["works"])
    words["aspect"], words["aspect2"] = rng.sample(_TABLE["aspects"], 2)
    template = rng.choice(_TABLE["phrases"][style])
    return sentence(template, words), is_held_out(template) or is_held_out(f"{template}|{x}")


def review(rng: Random, label: int) -> Draft:
    """Make an IMDb row: is the review favourable (1). Its verdict decides, whatever else it says."""
    lexicon = LEXICONS["everyday"]
    words = {kind: rng.choice(lexicon[kind]).name for kind in ("day", "job", "town")}
    work = words["work"] = rng.choice(_TABLE["works"])
    opening = sentence(rng.choice(_TABLE["reviews"]["openings"]), words)
    against, _ = _remark(rng, 1 - label, "plain", work)
    aside, _ = _remark(rng, rng.randrange(2), "contrast", work)
    styles = ("plain", "plain", "contrast", "emphatic", "negated", "twisted")
    verdict, held_out = _remark(rng, label, rng.choice(styles), work)
    middle = rng.sample([against, aside], rng.choice((0, 1)))
    closing = [rng.choice(_TABLE["verdicts"][_POLARITY[label]])] if rng.random() < 0.85 else []
    return Draft({"text": " ".join([opening, *middle, verdict, *closing]), "label": label}, held_out)
