"""Sampling, and what is written."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.sources.output import ParquetSink, describe, write_parquet
from stages.sources.sampling import Scatter, draw, equal_shares, generator

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=60)
SOME = settings(max_examples=60, deadline=None)


@SOME
@given(LABELS, st.integers(1, 70), st.integers(0, 2**31 - 1))
def test_a_limit_keeps_that_many_distinct_rows_as_balanced_as_the_data_allow(
    labels: list[int], limit: int, seed: int
) -> None:
    kept = draw(len(labels), limit, generator(seed, "x"), labels)
    assert len(kept) == len(set(kept.tolist())) == min(limit, len(labels))
    have, got = Counter(labels), Counter(labels[index] for index in kept)
    # a class falls behind the largest by more than one only if it has no more rows
    assert all(got[label] == have[label] or got[label] >= max(got.values()) - 1 for label in have)


@SOME
@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 120))
def test_equal_shares_add_up_and_fit(sizes: list[int], total: int) -> None:
    shares = equal_shares(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


def test_a_draw_depends_on_seed_and_name_only_and_is_shuffled() -> None:
    sorted_labels = [0] * 500 + [1] * 500
    first = draw(1000, 100, generator(1, "IMDb/train"), sorted_labels)
    assert np.array_equal(first, draw(1000, 100, generator(1, "IMDb/train"), sorted_labels))
    assert not np.array_equal(first, draw(1000, 100, generator(2, "IMDb/train"), sorted_labels))
    assert not np.array_equal(first, draw(1000, 100, generator(1, "IMDb/dev"), sorted_labels))
    assert 10 < sum(sorted_labels[index] for index in first[:50]) < 40


def test_no_limit_keeps_the_order() -> None:
    assert draw(5, None, generator(0, "x")).tolist() == draw(5, 9, generator(0, "x")).tolist() == [0, 1, 2, 3, 4]


@SOME
@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.data())
def test_a_stream_is_scattered_into_disjoint_samples_of_the_wanted_sizes(
    lengths: list[int], data: st.DataObject
) -> None:
    total = sum(lengths)
    first = data.draw(st.integers(0, total))
    wanted = [first, data.draw(st.integers(0, total - first))]
    draws = Scatter(total, wanted, generator(data.draw(st.integers(0, 1000)), "x"))
    taken: list[list[int]] = [[], []]
    for start, length in zip(np.cumsum([0, *lengths]).tolist(), lengths, strict=False):
        for sample, picks in zip(taken, draws.picks(length), strict=True):
            assert picks.tolist() == sorted(picks.tolist())
            sample += [start + pick for pick in picks.tolist()]
    assert [len(sample) for sample in taken] == wanted
    assert len(set(taken[0]) | set(taken[1])) == sum(wanted)


def test_a_scattered_sample_is_uniform() -> None:
    hits = np.zeros(40)
    random = generator(3, "uniform")
    for _ in range(2000):
        draws = Scatter(40, [10], random)
        for start, length in ((0, 25), (25, 5), (30, 10)):
            hits[start + draws.picks(length)[0]] += 1
    assert np.all(np.abs(hits / 2000 - 0.25) < 0.05)  # five standard deviations


# --- what is written


@SOME
@given(st.lists(st.text(max_size=5), max_size=40), st.lists(st.integers(0, 40), max_size=4), st.integers(1, 9))
def test_a_sinks_bytes_do_not_depend_on_the_batches(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cuts: list[int], group: int
) -> None:
    folder = tmp_path_factory.mktemp("sink")
    whole = pa.table({"text": pa.array(texts, pa.string())})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.sources.output.ROW_GROUP", group)
        write_parquet(folder / "whole.parquet", whole)
        sink = ParquetSink(folder / "parts.parquet", whole.schema)
        edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
        for start, stop in pairwise(edges):
            sink.write(whole[start:stop])
        sink.close()
    assert pq.read_table(folder / "parts.parquet").equals(whole)
    assert (folder / "parts.parquet").read_bytes() == (folder / "whole.parquet").read_bytes()


def test_the_note_tells_cuts_and_what_is_not_official() -> None:
    hub = {"source": "hub", "repository": "a/b", "revision": "0" * 40}
    whole = {"rows": 277, "available": 277, "official": 277}
    assert describe("RTE", hub, {"dev": whole})["complete"] is True
    assert describe("RTE", hub, {"dev": whole})["note"] == ""
    small = describe("RTE", hub, {"train": {"rows": 1000, "available": 2000, "official": 2490}, "dev": whole})
    assert small["complete"] is False
    assert small["note"] == (
        "the repository holds 2,000 of the official 2,490 training rows; cut: 1,000 of 2,000 training rows"
    )
    assert describe("RTE", {"source": "embedded"}, {"dev": {"rows": 5, "available": 5}})["note"].startswith("generated")
