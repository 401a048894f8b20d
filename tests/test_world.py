"""The embedded world: reproducible, well formed, balanced, and with train and dev apart."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.core.errors import UserError
from stages.sources.world import entailment, generate
from stages.sources.world.facts import FRAMES, Fact, draw_fact, draw_swappable
from stages.sources.world.lexicon import LEXICONS, sentence
from stages.sources.world.sampling import Draft, draw_rows

World = dict[str, dict[str, list[dict[str, Any]]]]

COLUMNS = {
    "corpus": {"text"},
    "CoLA": {"sentence", "label"},
    "SST-2": {"sentence", "label"},
    "MRPC": {"sentence1", "sentence2", "label"},
    "STS-B": {"sentence1", "sentence2", "label"},
    "QQP": {"question1", "question2", "label"},
    "MNLI": {"premise", "hypothesis", "label"},
    "QNLI": {"question", "sentence", "label"},
    "RTE": {"sentence1", "sentence2", "label"},
    "WNLI": {"sentence1", "sentence2", "label"},
    "imdb": {"text", "label"},
    "squad": {"id", "title", "context", "question", "answers"},
}
CLASSIFICATION = [task for task, columns in COLUMNS.items() if "label" in columns and task != "STS-B"]
PROGRAM = "import json, stages.sources.world as w; print(json.dumps(w.generate(7, 20, 20, 20)))"


@cache
def world() -> World:
    return generate(seed=7, corpus_paragraphs=200, train_rows=300, dev_rows=150)


def texts(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {tuple(v for k, v in row.items() if isinstance(v, str) and k not in {"id", "title"}) for row in rows}


def seeds() -> st.SearchStrategy[Random]:
    return st.integers(0, 2**32).map(Random)


@pytest.mark.parametrize("hash_seed", ["0", "123"])
def test_same_rows_in_any_process(hash_seed: str) -> None:
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert out.stdout.strip() == json.dumps(generate(7, 20, 20, 20))


def test_seeds_give_different_worlds() -> None:
    assert generate(1, 5, 5, 5) != generate(2, 5, 5, 5)


def test_larger_worlds_begin_like_smaller_ones() -> None:
    small, large = generate(7, 10, 10, 10), generate(7, 20, 40, 30)
    for name, splits in small.items():
        for split, rows in splits.items():
            assert large[name][split][: len(rows)] == rows


def test_needs_the_standard_library_only() -> None:
    heavy = "import sys, stages.sources.world; print([m for m in ('numpy', 'torch', 'datasets') if m in sys.modules])"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", heavy], env=env, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_and_sizes(name: str) -> None:
    splits = world()[name]
    assert set(splits) - {"dev_mismatched"} == ({"train", "validation"} if name == "corpus" else {"train", "dev"})
    assert len(splits["train"]) == (200 if name == "corpus" else 300)
    for rows in splits.values():
        assert all(set(row) == COLUMNS[name] for row in rows)


@pytest.mark.parametrize("name", COLUMNS)
def test_no_example_twice_and_none_in_both_splits(name: str) -> None:
    first, *others = world()[name].values()
    assert len(texts(first)) >= 0.99 * len(first)
    for other in others:
        assert not texts(first) & texts(other)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classes_are_balanced(name: str) -> None:
    for rows in world()[name].values():
        counts = Counter(row["label"] for row in rows)
        assert sorted(counts) == list(range(len(counts)))
        assert max(counts.values()) <= 0.6 * len(rows)


def test_similarity_scores_cover_the_scale() -> None:
    scores = [row["label"] for row in world()["STS-B"]["train"]]
    assert all(isinstance(score, float) and 0 <= score <= 5 for score in scores)
    assert {round(score) for score in scores} == set(range(6))


def test_mismatched_dev_is_another_genre() -> None:
    names = {word.name for word in LEXICONS["everyday"]["person"]}
    mismatched = world()["MNLI"]["dev_mismatched"]
    assert not any(names & set(re.findall(r"\w+", row["premise"])) for row in mismatched)


def test_answers_are_spans_of_their_context() -> None:
    rows = world()["squad"]["train"] + world()["squad"]["dev"]
    for row in rows:
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
    assert len({row["id"] for row in rows}) == len(rows)
    assert {len(row["answers"]["text"]) for row in world()["squad"]["train"]} == {1}
    assert {len(row["answers"]["text"]) for row in world()["squad"]["dev"]} == {1, 2}


def test_every_text_is_filled_and_written_out() -> None:
    for splits in world().values():
        for rows in splits.values():
            for text in (text for row in texts(rows) for text in row):
                assert re.fullmatch(r"[A-Z][A-Za-z ',.:;?!]+[.?!]", text), text


@given(seeds(), st.sampled_from(sorted(FRAMES)), st.sampled_from(sorted(LEXICONS)))
@settings(max_examples=100, deadline=None)
def test_every_template_of_a_fact_can_be_filled(rng: Random, name: str, genre: str) -> None:
    frame = FRAMES[name]
    fact = draw_fact(rng, genre, [frame])
    asked = [template for templates in frame.questions.values() for template in templates]
    for template in (*frame.forms, *frame.weaker, *frame.open, *frame.opposite, *asked):
        assert "{" not in fact.fill(template)
    assert len({word.name for word in fact.words.values()}) == len(fact.words)


@given(seeds(), st.sampled_from(sorted(FRAMES)))
@settings(max_examples=100, deadline=None)
def test_every_form_of_a_fact_names_all_its_words(rng: Random, name: str) -> None:
    fact = draw_fact(rng, frames=[FRAMES[name]])
    for form in fact.frame.forms:
        for slot in fact.frame.slots:
            assert f"{{{slot}" in form, (form, slot)


@given(seeds(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_change_touches_one_slot_and_leaves_the_meaning_of_no_synonym(rng: Random, near: bool) -> None:
    fact = draw_fact(rng)
    slot = rng.choice(list(fact.words))
    changed = fact.changed(rng, slot, near)
    assert [s for s in fact.words if changed.words[s] != fact.words[s]] == [slot]
    assert changed.words[slot].name != fact.words[slot].synonym


@given(seeds())
@settings(max_examples=50, deadline=None)
def test_swapping_twice_changes_nothing(rng: Random) -> None:
    fact = draw_swappable(rng)
    assert fact.swapped() != fact
    assert fact.swapped().swapped() == fact


@given(seeds())
@settings(max_examples=50, deadline=None)
def test_the_labels_of_inference_follow_from_its_templates(rng: Random) -> None:
    fact = draw_fact(rng)
    told = {label: entailment.inference(Random(str(label)), label).row["label"] for label in range(3)}
    assert told == {0: 0, 1: 1, 2: 2}
    for part in ("weaker", "open", "opposite"):
        others = {"weaker", "open", "opposite", "forms"} - {part}
        assert not set(getattr(fact.frame, part)) & {t for other in others for t in getattr(fact.frame, other)}


def test_a_weaker_claim_uses_what_is_generally_known() -> None:
    words = {kind: LEXICONS["everyday"][kind][0] for kind in ("person", "town", "job")}
    fact = Fact(FRAMES["work"], words, "everyday")
    assert fact.say(Random(0)).count("doctor") == 1
    assert fact.fill(fact.frame.weaker[0]) == "Anna treats sick people for a living."
    assert fact.fill(fact.frame.weaker[1]) == "Anna has a job in France."


def test_articles_follow_the_sound() -> None:
    assert sentence("a {x} and a {y}.", {"x": "axe", "y": "drill"}) == "An axe and a drill."


def test_asking_for_more_rows_than_exist_is_an_error() -> None:
    def one_row(rng: Random, label: int) -> Draft:
        return Draft({"label": label}, held_out=False)

    with pytest.raises(UserError, match=r"s/t/train: .* no more than 1 rows .* lower train_rows"):
        draw_rows(one_row, (0,), 2, "s/t/train", held_out=False)
