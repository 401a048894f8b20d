"""SQuAD windows, labels and answers."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import WORDS, tokenizer

from stages.core.errors import UserError
from stages.finetuning.squad import best_answers, best_span, make_windows

few = settings(max_examples=30, deadline=None)


class Model:
    """What `make_windows` asks of a model."""

    class config:  # noqa: N801
        max_position_embeddings = 512

    def forward(self, input_ids, attention_mask, token_type_ids):
        raise NotImplementedError


TOKENIZER = tokenizer()


def row(context, answer=None, question="who sat on the mat?", start=None):
    found = context.index(answer) if answer is not None and start is None else start
    return {
        "id": context[:8],
        "question": question,
        "context": context,
        "answers": {"text": [answer], "answer_start": [found]} if answer is not None else {},
    }


def windows_of(rows, max_length=24, doc_stride=4, labelled=False):
    return make_windows(rows, TOKENIZER, Model(), max_length, doc_stride, labelled)


def context_ids(window):
    ids = window.features["input_ids"]
    return ids[window.first : window.first + len(window.spans)]


@few
@given(
    st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join),
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
    st.integers(8, 40),
    st.data(),
)
def test_windows_cover_every_context_token_and_fit(context, question, max_length, data):
    stride = data.draw(st.integers(1, max_length - 4))
    windows = windows_of([row(context, question=question)], max_length, stride)
    whole = TOKENIZER(context, add_special_tokens=False, return_offsets_mapping=True)
    covered = {tuple(span) for window in windows for span in window.spans.tolist()}
    assert covered == {tuple(span) for span in whole["offset_mapping"]}
    for window in windows:
        ids, types = window.features["input_ids"], window.features["token_type_ids"]
        assert len(ids) == len(types) <= max_length
        assert ids[0] == TOKENIZER.cls_token_id
        assert ids[-1] == TOKENIZER.sep_token_id == ids[window.first - 1]
        assert types == [0] * window.first + [1] * (len(ids) - window.first)
        texts = [context[begin:end] for begin, end in window.spans]
        assert TOKENIZER.convert_tokens_to_ids([text.lower() for text in texts]) == context_ids(window)


def test_neighbouring_windows_share_doc_stride_tokens():
    windows = windows_of([row(" ".join(WORDS * 4))], max_length=24, doc_stride=5)
    assert len(windows) > 2
    for left, right in pairwise(windows):
        assert left.spans[-5:].tolist() == right.spans[:5].tolist()


@few
@given(st.lists(st.sampled_from([*WORDS, "café", "U.S.", "1,000", "Ünïted"]), min_size=1, max_size=60), st.data())
def test_labels_point_at_the_answer(words, data):
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 4, len(words) - 1)))
    start = len(" ".join(words[:first])) + (first > 0)
    answer, context = " ".join(words[first : last + 1]), " ".join(words)
    labelled = windows_of([row(context, answer, start=start)], max_length=40, doc_stride=12, labelled=True)
    answered = 0
    for window in labelled:
        begin, end = window.features["start_positions"], window.features["end_positions"]
        holds = len(window.spans) and window.spans[0, 0] <= start and window.spans[-1, 1] >= start + len(answer)
        if holds:
            assert context[window.spans[begin - window.first, 0] : window.spans[end - window.first, 1]] == answer
            answered += 1
        else:
            assert (begin, end) == (0, 0)
    if len(labelled) == 1:
        assert answered == 1


def test_an_answer_that_spans_two_windows_is_labelled_in_neither_unless_the_overlap_holds_it():
    context = " ".join(["dog"] * 20 + ["cat"] * 6 + ["dog"] * 20)
    answer = " ".join(["cat"] * 6)
    wide = windows_of([row(context, answer)], max_length=24, doc_stride=8, labelled=True)
    assert any(window.features["start_positions"] for window in wide)
    context = " ".join(["dog"] * 12 + ["cat"] * 6 + ["dog"] * 12)
    narrow = windows_of([row(context, answer)], max_length=24, doc_stride=1, labelled=True)
    assert [window.features["start_positions"] for window in narrow] == [0] * len(narrow)


def test_an_answer_inside_a_word_is_labelled_by_that_words_tokens():
    (window,) = windows_of([row("in 1990s town", "1990")], labelled=True)
    first, last = (window.features[key] - window.first for key in ("start_positions", "end_positions"))
    assert "1990" in "in 1990s town"[window.spans[first, 0] : window.spans[last, 1]]


def test_a_long_question_leaves_half_of_the_window_to_the_context():
    windows = windows_of([row("the cat sat on the mat", question="who " * 300)], max_length=21, doc_stride=17)
    assert all(len(window.features["input_ids"]) <= 21 for window in windows)
    assert max(len(window.spans) for window in windows) == 6


def test_windows_that_cannot_advance_are_an_error():
    with pytest.raises(UserError, match=r"doc_stride 30 must be below max_length - 3 = 21"):
        windows_of([row("the cat")], max_length=24, doc_stride=30)


def test_more_tokens_than_positions_are_an_error():
    with pytest.raises(UserError, match="max_length 600 exceeds the model's 512 positions"):
        windows_of([row("the cat")], max_length=600, doc_stride=30)


def logits_for(windows, peaks):
    """Zero logits of one width with the given {(window, position): (start, end)}."""
    width = max(len(window.features["input_ids"]) for window in windows)
    starts, ends = np.zeros((2, len(windows), width), dtype=np.float32)
    for (index, position), (start, end) in peaks.items():
        starts[index, position], ends[index, position] = start, end
    return list(starts), list(ends)


def test_the_best_answer_over_all_windows_wins():
    rows = [row("the river " * 10 + "the town")]
    windows = windows_of(rows)
    last = len(windows) - 1
    town = windows[last].first + len(windows[last].spans) - 1
    starts, ends = logits_for(windows, {(0, windows[0].first): (3, 3), (last, town): (5, 4)})
    assert best_answers(rows, windows, starts, ends, 30, 20) == ["town"]


def test_answers_never_come_from_question_or_special_tokens():
    rows = [row("the cat")]
    (window,) = windows_of(rows)
    everywhere_else = [position for position in range(24) if not 0 <= position - window.first < 2]
    peaks = {(0, p): (9, 9) for p in everywhere_else if p < len(window.features["input_ids"])}
    starts, ends = logits_for([window], peaks | {(0, window.first + 1): (1, 1)})
    assert best_answers(rows, [window], starts, ends, 30, 20) == ["cat"]


def test_one_answer_a_question_in_the_order_of_the_questions():
    rows = [row("the cat"), row("", question="what?"), row("the river " * 20)]
    windows = windows_of(rows)
    answers = best_answers(rows, windows, *logits_for(windows, {}), 30, 20)
    assert len(answers) == 3
    assert answers[0] == "the"
    assert answers[1] == ""
    assert answers[2] == "the"


def test_answers_keep_the_contexts_own_spelling():
    rows = [row("In  ÜNÏTED U.S. town")]
    (window,) = windows_of(rows, max_length=40)
    text = rows[0]["context"]
    begin = next(i for i, span in enumerate(window.spans) if text[span[0]] == "Ü")
    end = next(i for i, span in enumerate(window.spans) if text[span[0]] == "S")
    peaks = {(0, window.first + begin): (5, 0), (0, window.first + end): (0, 5)}
    assert best_answers(rows, [window], *logits_for([window], peaks), 30, 20) == ["ÜNÏTED U.S"]


@few
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=12),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_best_span_equals_a_plain_search(logits, max_answer_length, n_best):
    starts, ends = (np.array(column, dtype=np.float32) for column in zip(*logits, strict=True))
    top_starts = sorted(range(len(starts)), key=lambda i: (-starts[i], i))[:n_best]
    top_ends = sorted(range(len(ends)), key=lambda i: (-ends[i], i))[:n_best]
    pairs = [(i, j) for i in top_starts for j in top_ends if i <= j < i + max_answer_length]
    found = best_span(starts, ends, max_answer_length, n_best)
    if not pairs:
        assert found is None
    else:
        score, first, last = found
        assert score == max(starts[i] + ends[j] for i, j in pairs) == starts[first] + ends[last]
        assert (first, last) in pairs


def test_a_question_without_a_fitting_pair_is_answered_with_nothing():
    assert best_span(np.array([0, 9]), np.array([9, 0]), 30, 1) is None
