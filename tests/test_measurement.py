"""Arithmetic of the measurements on a fake clock, sizes, and memory against known allocations."""

import math
import mmap
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib
from onnx import TensorProto, helper, numpy_helper

from stages.core.errors import UserError
from stages.core.params import load_params
from stages.measurement import memory
from stages.measurement.compression import row
from stages.measurement.facts import onnx_sparsity
from stages.measurement.machine import describe
from stages.measurement.memory import PeakMemory
from stages.measurement.rounds import interleaved, summarise
from stages.measurement.sizes import compressed_megabytes, megabytes
from stages.measurement.timing import percentile, repeated, spread, timed
from stages.measurement.worker import onnx_model, peak_memory, times

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20


class FakeClock:
    """Nanoseconds that pass only when something says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def test_a_call_takes_the_time_that_it_takes() -> None:
    clock = FakeClock()
    assert timed(lambda: clock.work(1.25), clock) == 1.25


def test_warm_up_does_not_count() -> None:
    clock, durations = FakeClock(), iter([9.0, 8.0, 1.0, 2.0, 3.0])
    assert repeated(lambda: clock.work(next(durations)), 2, 3, clock) == [1.0, 2.0, 3.0]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_percentile_is_the_nearest_rank(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= math.floor(share * len(values))
    assert found == np.percentile(values, 100 * share, method="inverted_cdf")


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0.0), ([1.0], 1.1)])
def test_percentiles_of_nothing_are_refused(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(values, share)


def test_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 2.0004], 3) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_models_take_turns_and_none_goes_first_always() -> None:
    calls: list[str] = []

    def measure(order: Sequence[str]) -> Generator[dict[str, int], None, None]:
        for name in order:
            calls.append(name)
            yield {"call": len(calls)}

    found = interleaved(["a", "b", "c"], 3, measure, str, "test")
    assert "".join(calls) == "abcbcacab"
    assert found["a"] == [{"call": 1}, {"call": 6}, {"call": 8}]


SPECIFICATION = {"lengths": [16, 64], "warmup": 2, "repeats": 3, "batches": 3, "throughput_batch": 8}


def test_what_is_timed_of_a_model() -> None:
    """Loading, the first inference alone, the measured ones after the warm-up, and the median of the batches."""
    clock = FakeClock()
    one_row = {16: [7.0, 7.0, 1.0, 3.0, 2.0], 64: [5.0, 9.0, 9.0, 4.0, 5.0, 6.0]}  # the first of 64 is the cold start
    batches = [30.0, 4.0, 100.0, 2.0]  # a warm-up, then one that something disturbed among them

    def load() -> Callable[[int, int], None]:
        clock.work(0.25)
        return lambda rows, tokens: clock.work(batches.pop(0) if rows == 8 else one_row[tokens].pop(0))

    found = times(load, {**SPECIFICATION, "throughput_length": 32}, clock)
    assert found["load_ms"] == 250.0
    assert found["cold_start_ms"] == 5000.0
    assert found["latency_ms"] == {"16": [1000.0, 3000.0, 2000.0], "64": [4000.0, 5000.0, 6000.0]}
    assert found["throughput"] == 8 / 4.0
    assert batches == one_row[16] == one_row[64] == []


@pytest.mark.parametrize("when", ["loading", "running"])
def test_peak_memory_is_of_loading_and_of_single_rows(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.core.allocator.give_back_freed_memory", lambda: None)  # for good, in this process
    calls: list[tuple[int, int]] = []

    def take(now: str) -> None:
        if now == when:
            fresh_pages().close()

    def load() -> Callable[[int, int], None]:
        take("loading")

        def infer(rows: int, tokens: int) -> None:
            calls.append((rows, tokens))
            take("running")

        return infer

    assert 60 < peak_memory(load, SPECIFICATION)["peak_memory_mb"] < 80
    assert calls == [(1, 16), (1, 64)]


@pytest.mark.parametrize(("figure", "arena"), [("times", True), ("memory", False)])
def test_onnx_runtime_has_its_arena_only_where_it_is_timed(
    figure: str, arena: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened(Exception):  # noqa: N818 - not an error
        pass

    def opened(path: Path, threads: int, arena: bool) -> None:
        raise Opened(arena)

    monkeypatch.setattr("stages.core.allocator.give_back_freed_memory", lambda: None)
    monkeypatch.setattr("stages.deployment.session.open_session", opened)
    with pytest.raises(Opened, match=str(arena)):
        onnx_model({**SPECIFICATION, "figure": figure, "path": "model.onnx", "threads": 1, "vocabulary": 10})()


BLOCKS = """
import ctypes, sys
from stages.measurement.worker import peak_memory

free = ctypes.CDLL(None).free
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def block(mebibytes):
    address = malloc(mebibytes << 20)
    ctypes.memset(address, 1, mebibytes << 20)
    return address

def load():
    free(block(24))  # after which glibc by itself keeps blocks of up to that size
    below = block(20)
    block(1)  # which stays and keeps it from giving the one below back
    free(below)
    return lambda rows, tokens: free(block(21))

print(peak_memory(load, {"lengths": [16]})["peak_memory_mb"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_peak_memory_counts_no_block_that_was_freed_before() -> None:
    command = [sys.executable, "-c", BLOCKS]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(found.stdout) == pytest.approx(24, abs=1.5)  # and not 20 + 1 + 21


def one_round(factor: float) -> dict[str, object]:
    return {
        "load_ms": 100 * factor,
        "cold_start_ms": 10 * factor,
        "throughput": 50 / factor,
        "latency_ms": {"16": [factor * value for value in (1.0, 2.0, 3.0, 4.0, 10.0)], "64": [5.0 * factor]},
    }


def test_rounds_reduce_to_medians_of_each_round_s_percentiles() -> None:
    figures = summarise([one_round(factor) for factor in (1.0, 3.0, 2.0)])
    assert figures["load_ms"] == {"median": 200.0, "low": 100.0, "high": 300.0}
    assert figures["latency_ms.16.p50"] == {"median": 6.0, "low": 3.0, "high": 9.0}
    assert figures["latency_ms.16.p90"]["median"] == 20.0
    assert figures["throughput"]["median"] == 25.0


def test_a_row_of_the_table_has_the_contract_s_keys() -> None:
    settings = load_params(ROOT / "profiles/tiny.yaml").speed_bench
    facts = {"size_mb": 1.5, "compressed_mb": 1.0, "parameters": 12, "sparsity": 0.5, "peak_memory_mb": 7.0}
    found = row(facts, [one_round(1.0)], settings)
    assert found == {
        **facts,
        "load_ms": 100.0,
        "cold_start_ms": 10.0,
        "throughput": 50.0,
        "throughput_batch": settings.throughput_batch,
        "throughput_length": settings.throughput_length,
        "latency_ms": {"16": {"p50": 3.0, "p90": 10.0}, "64": {"p50": 5.0, "p90": 5.0}},
    }


def fresh_pages() -> mmap.mmap:
    """Take 64 MiB from the system itself, since malloc may have as much from what ran before in this process."""
    pages = mmap.mmap(-1, 64 * MIB)
    for _ in range(64):
        pages.write(bytes(MIB))
    return pages


def test_peak_memory_counts_what_was_held_even_if_it_is_gone() -> None:
    with PeakMemory() as peak:
        fresh_pages().close()
    assert 60 * MIB < peak.growth < 80 * MIB


def test_peak_memory_does_not_count_what_was_there_before() -> None:
    before = fresh_pages()
    with PeakMemory() as peak:
        assert before[-1] == 0
    assert peak.growth < 16 * MIB


def test_sampled_memory_finds_a_peak_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLEAR_REFS", Path("/nowhere/clear_refs"))
    with PeakMemory() as peak:
        held = fresh_pages()
        give_up = time.monotonic() + 60
        while peak._peak - peak._before < 50 * MIB and time.monotonic() < give_up:
            time.sleep(0.001)
        held.close()
    assert peak.growth >= 50 * MIB


FORK = """
import os, sys, torch, psutil
from stages.measurement.memory import page_in_libraries
before = psutil.Process().memory_info().rss
origin = os.getpid()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
fork = psutil.Process().memory_info().rss
page_in_libraries(origin)
print(before, fork, psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_fork_gets_the_pages_that_its_origin_held() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=True)
    origin, fork, paged_in = map(int, done.stdout.split())
    assert fork < 0.8 * origin
    assert 0.95 * origin < paged_in < 1.1 * origin


@given(st.binary(max_size=2000))
def test_sizes_are_those_of_the_file_and_of_a_stream_that_zlib_reads(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights")
        path.write_bytes(content)
        assert megabytes(path) * MIB == len(content)
        compressed = isal_zlib.compress(content)
        assert zlib.decompress(compressed) == content
        assert compressed_megabytes(path) * MIB == len(compressed)


@pytest.mark.parametrize("kind", ["fp32", "pruned", "int8"])
def test_weights_compress_as_well_as_in_an_application_package(tmp_path: Path, kind: str) -> None:
    weights = np.random.default_rng(7).normal(0, 0.05, 3 * MIB // 2).astype(np.float32)  # 6 MiB, more than one chunk
    if kind == "pruned":
        weights[np.abs(weights) < 0.02] = 0
    content = (weights * 400).round().astype(np.int8).tobytes() if kind == "int8" else weights.tobytes()
    (tmp_path / "weights").write_bytes(content)
    assert compressed_megabytes(tmp_path / "weights") * MIB == pytest.approx(len(zlib.compress(content, 6)), rel=0.02)


def test_sparsity_of_an_onnx_file_counts_weights_of_products_only(tmp_path: Path) -> None:
    weights = np.ones((4, 5), np.float32)
    weights[0] = 0.0
    table = np.zeros((6, 4), np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], ["found"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(table, "table")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    path = tmp_path / "model.onnx"
    assert onnx_sparsity(path, vocabulary=6) == pytest.approx(0.25)
    for damaged in (path.read_bytes()[:-20], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model.onnx: damaged .*`dvc repro onnx-export`"):
            onnx_sparsity(path, vocabulary=6)


def test_the_machine_is_described_without_gaps() -> None:
    found = describe(2)
    assert found["threads"] == 2
    assert found["cores"] == os.cpu_count()
    assert all(value not in ("", None) for key, value in found.items() if key != "instruction_sets")
