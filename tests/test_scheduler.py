"""The order in which stages are handed on: nothing before what it needs, nothing idle, failures contained."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.scheduler import ATTEMPTS, FINISHED, CannotRun, End, Outcome, State, schedule


@dataclass
class Clock:
    now: float = 0.0


@dataclass
class FakePipeline:
    """A graph whose stages must all be run, unless said otherwise; checks that what they need is there."""

    upstream: Mapping[str, frozenset[str]]
    settled: Mapping[str, State] = field(default_factory=dict)
    here: frozenset[str] = frozenset()
    lost_results: dict[str, int] = field(default_factory=dict)  # how often the results of a stage are not there
    there: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)  # whether they must run

    def settle(self, stage: str) -> State | None:
        assert self.upstream[stage] <= self.there
        self.asked.append(stage)
        if state := self.settled.get(stage):
            self.there.add(stage)
            return state
        return None

    def take(self, stages: Sequence[str]) -> dict[str, str]:
        missing = {}
        for stage in stages:
            if self.lost_results.get(stage, 0):
                self.lost_results[stage] -= 1
                missing[stage] = "gone"
            else:
                self.there.add(stage)
        return missing

    def stays_here(self, stage: str) -> bool:
        return stage in self.here

    def write(self, after: float = 0.0) -> None:
        if not after:
            self.written = set(self.there)


@dataclass
class FakeWorkers:
    """So many slots on a simulated clock; a stage takes its length and ends as told, in turn."""

    clock: Clock
    slots: int
    lengths: Mapping[str, float] = field(default_factory=dict)
    ends: dict[str, list[End]] = field(default_factory=dict)
    running: list[tuple[float, str]] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    submitted: list[tuple[str, bool]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    local: bool = False  # whether a stage that holds up all others may stay here
    prepared: list[str] = field(default_factory=list)  # what ran then
    dismissed: list[int] = field(default_factory=list)  # stages that were submitted before

    def may_stay(self, stage: str) -> bool:
        return self.local

    def prepare(self) -> None:
        self.prepared += [stage for _, stage in self.running]

    def dismiss(self) -> None:
        assert not self.running
        self.dismissed.append(len(self.submitted))

    def room(self, handed_on: Sequence[str]) -> int:
        assert len(handed_on) <= self.slots
        return self.slots - len(handed_on)

    def begun(self) -> list[str]:
        started, self.started = self.started, []
        return started

    def submit(self, stage: str, here: bool) -> None:
        self.submitted.append((stage, here))
        self.queued.append(stage)
        self._fill()

    def wait(self, seconds: float) -> list[Outcome]:
        until, stage = heapq.heappop(self.running)
        self.clock.now = until
        ends = self.ends.get(stage) or [End.DONE]
        outcome = Outcome(stage, ends.pop(0), "told")
        self._fill()
        return [outcome]

    def _fill(self) -> None:
        while self.queued and len(self.running) < self.slots:
            stage = self.queued.pop(0)
            self.started.append(stage)
            heapq.heappush(self.running, (self.clock.now + self.lengths.get(stage, 1.0), stage))


class Placing(FakeWorkers):
    """Workers for which nothing waits."""

    def room(self, handed_on: Sequence[str]) -> int:
        return self.slots - len(self.running)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    names = [f"s{number}" for number in range(draw(st.integers(1, 12)))]
    return {
        name: frozenset(draw(st.sets(st.sampled_from(names[:index]))) if index else ())
        for index, name in enumerate(names)
    }


def run(pipeline: FakePipeline, slots: int = 2, **how: dict[str, object]) -> tuple[dict[str, State], FakeWorkers]:
    clock = Clock()
    workers = FakeWorkers(clock, slots, **how)  # type: ignore[arg-type]
    board = schedule(pipeline, workers, clock=lambda: clock.now)
    return {stage: progress.state for stage, progress in board.stages.items()}, workers


@given(graphs(), st.integers(1, 5), st.booleans(), st.data())
def test_every_stage_runs_once_and_no_worker_idles(
    graph: dict[str, frozenset[str]], slots: int, local: bool, data: st.DataObject
) -> None:
    lengths = {stage: data.draw(st.floats(0.1, 10)) for stage in graph}
    states, workers = run(FakePipeline(graph), slots, lengths=lengths, local=local)
    assert set(states.values()) == {State.DONE}
    assert sorted(stage for stage, _ in workers.submitted) == sorted(graph)
    longest: dict[str, float] = {}
    for stage, needed in graph.items():
        longest[stage] = lengths[stage] + max((longest[other] for other in needed), default=0)
    # Graham (1966): a schedule that leaves no slot idle while a stage is ready
    assert workers.clock.now <= sum(lengths.values()) / slots + (1 - 1 / slots) * max(longest.values()) + 1e-9


@given(graphs(), st.booleans(), st.data())
def test_a_failure_stops_only_what_depends_on_it(
    graph: dict[str, frozenset[str]], local: bool, data: st.DataObject
) -> None:
    failing = data.draw(st.sampled_from(sorted(graph)))
    states, _ = run(FakePipeline(graph), ends={failing: [End.FAILED]}, local=local)
    dependents: set[str] = set()
    for stage, needed in graph.items():
        if needed & (dependents | {failing}):
            dependents.add(stage)
    assert states.pop(failing) is State.FAILED
    assert {stage for stage, state in states.items() if state is State.SKIPPED} == dependents
    assert {state for stage, state in states.items() if stage not in dependents} <= {State.DONE}


@given(graphs(), st.data())
def test_what_is_up_to_date_is_not_handed_on(graph: dict[str, frozenset[str]], data: st.DataObject) -> None:
    settled = data.draw(
        st.dictionaries(st.sampled_from(sorted(graph)), st.sampled_from([State.UNCHANGED, State.CACHED]))
    )
    states, workers = run(FakePipeline(graph, settled))
    assert {stage for stage, _ in workers.submitted} == graph.keys() - settled.keys()
    assert set(states.values()) <= FINISHED


@given(graphs(), st.integers(1, 5), st.data())
def test_only_what_all_others_wait_for_stays_here(
    graph: dict[str, frozenset[str]], slots: int, data: st.DataObject
) -> None:
    lengths = {stage: data.draw(st.floats(0.1, 10)) for stage in graph}
    _, workers = run(FakePipeline(graph), slots, lengths=lengths, local=True)
    above: dict[str, frozenset[str]] = {}
    for stage, needed in graph.items():
        above[stage] = needed.union(*(above[other] for other in needed))
    left = set(graph)
    for stage, here in workers.submitted:
        left.remove(stage)
        if here:
            assert all(stage in above[other] for other in left)
            assert (stage in workers.prepared) == bool(left)


def test_what_holds_up_all_others_runs_here_while_workers_are_prepared() -> None:
    graph = {
        "download": frozenset[str](),
        "teacher": frozenset({"download"}),
        "a": frozenset({"teacher"}),
        "b": frozenset({"teacher"}),
        "report": frozenset({"a", "b"}),
    }
    _, workers = run(FakePipeline(graph, here=frozenset({"report"})), local=True)
    assert workers.submitted == [("download", True), ("teacher", True), ("a", False), ("b", False), ("report", True)]
    assert workers.prepared == ["download", "teacher"]


def test_what_is_lost_here_goes_to_a_worker() -> None:
    graph = {"a": frozenset[str](), "b": frozenset({"a"})}
    states, workers = run(FakePipeline(graph), ends={"a": [End.LOST, End.DONE]}, local=True)
    assert states == {"a": State.DONE, "b": State.DONE}
    assert workers.submitted == [("a", True), ("a", False), ("b", True)]


def test_what_is_lost_here_and_can_run_nowhere_else_runs_here_again() -> None:
    states, workers = run(FakePipeline({"a": frozenset()}, here=frozenset({"a"})), ends={"a": [End.LOST, End.DONE]})
    assert states == {"a": State.DONE}
    assert workers.submitted == [("a", True), ("a", True)]


def test_a_lost_measurement_is_repeated_where_nothing_runs_beside_it() -> None:
    clock = Clock()
    workers = FakeWorkers(clock, 1, ends={"measure": [End.LOST, End.DONE]}, local=True)
    schedule(FakePipeline({"measure": frozenset()}), workers, clock=lambda: clock.now, exclusive={"measure"})
    assert workers.submitted == [("measure", True), ("measure", True)]


def test_no_worker_is_prepared_for_what_stays_here_anyway() -> None:
    graph = {"a": frozenset[str](), "report": frozenset({"a"})}
    _, workers = run(FakePipeline(graph, here=frozenset({"report"})), local=True)
    assert workers.submitted == [("a", True), ("report", True)]
    assert workers.prepared == []


def test_a_lost_worker_costs_another_run_the_last_one_here() -> None:
    graph = {"a": frozenset[str](), "b": frozenset({"a"})}
    states, workers = run(FakePipeline(graph), ends={"a": [End.LOST] * (ATTEMPTS - 1) + [End.DONE]})
    assert states == {"a": State.DONE, "b": State.DONE}
    assert workers.submitted == [("a", False)] * (ATTEMPTS - 1) + [("a", True), ("b", False)]


def test_a_worker_lost_again_and_again_is_a_failure() -> None:
    states, workers = run(FakePipeline({"a": frozenset()}), ends={"a": [End.LOST] * 9})
    assert states == {"a": State.FAILED}
    assert len(workers.submitted) == ATTEMPTS


def test_results_that_do_not_arrive_are_made_again() -> None:
    states, workers = run(FakePipeline({"a": frozenset()}, lost_results={"a": 1}))
    assert states == {"a": State.DONE}
    assert workers.submitted == [("a", False), ("a", True)]  # here, since workers have the code as it was


def test_what_most_stages_wait_for_goes_first() -> None:
    chain = {"cell": frozenset[str](), "a": frozenset[str](), "b": frozenset({"a"}), "c": frozenset({"b", "cell"})}
    _, workers = run(FakePipeline(chain), slots=1)
    assert [stage for stage, _ in workers.submitted] == ["a", "b", "cell", "c"]  # b of equals: its way was longer


def test_what_nothing_runs_beside_goes_when_no_other_can() -> None:
    graph = {name: frozenset[str]() for name in ("measure", "cell0", "cell1")} | {"report": frozenset({"measure"})}
    clock = Clock()
    workers = FakeWorkers(clock, 1)
    schedule(FakePipeline(graph), workers, clock=lambda: clock.now, exclusive={"measure"})
    assert [stage for stage, _ in workers.submitted] == ["cell0", "cell1", "measure", "report"]


def test_on_one_machine_it_waits_until_nothing_runs_and_has_no_workers_beside_it() -> None:
    class Watching(FakeWorkers):
        def submit(self, stage: str, here: bool) -> None:
            assert not self.running or "measure" not in (stage, self.running[0][1])
            super().submit(stage, here)

    graph = {
        "cell": frozenset[str](),
        "long": frozenset[str](),
        "measure": frozenset({"cell"}),
        "urgent": frozenset({"long"}),
        "report": frozenset({"measure", "urgent"}),
    }
    clock = Clock()
    workers = Watching(clock, 2, lengths={"long": 9.0}, local=True)
    pipeline = FakePipeline(graph, here=frozenset({"report"}))
    schedule(pipeline, workers, clock=lambda: clock.now, exclusive={"measure"})
    assert workers.submitted == [
        ("cell", False),
        ("long", False),
        ("urgent", False),  # which became ready while the measurement waited
        ("measure", True),
        ("report", True),
    ]
    assert workers.prepared == []
    assert workers.dismissed == [3, 4]  # before the measurement, and again, which does nothing


def test_what_nothing_runs_beside_does_not_wait_together_with_others() -> None:
    graph = {name: frozenset[str]() for name in ("measure", "cell0", "cell1", "cell2")}
    waiting = {}

    class Watching(FakeWorkers):
        def room(self, handed_on: Sequence[str]) -> int:
            return 4 - len(handed_on)  # more than run

        def submit(self, stage: str, here: bool) -> None:
            waiting[stage] = list(self.queued)
            super().submit(stage, here)

    clock = Clock()
    schedule(FakePipeline(graph), Watching(clock, 2), clock=lambda: clock.now, exclusive={"measure"})
    assert list(waiting) == ["cell0", "cell1", "cell2", "measure"]
    assert waiting["measure"] == []


def test_what_becomes_ready_later_goes_before_what_nothing_waits_for() -> None:
    cells = {f"cell{number}": frozenset[str]() for number in range(6)}
    chain = {"a": frozenset[str](), "b": frozenset({"a"}), "c": frozenset({"b"}), "d": frozenset({"c"})}
    _, workers = run(FakePipeline(cells | chain), slots=2, lengths={"a": 2.0})
    order = [stage for stage, _ in workers.submitted]
    assert order.index("cell0") < order.index("b") < order.index("c") < order.index("cell5")


def test_a_place_is_filled_before_results_are_taken_unless_they_make_a_more_urgent_one_ready() -> None:
    cells = {f"cell{number}": frozenset[str]() for number in range(4)}
    chain = {"a": frozenset[str](), "b": frozenset({"a"}), "c": frozenset({"b"}), "d": frozenset({"c"})}
    done: list[str] = []

    class Pipeline(FakePipeline):
        def take(self, stages: Sequence[str]) -> dict[str, str]:
            done.extend(f"took {stage}" for stage in stages)
            return super().take(stages)

    class Workers(Placing):
        def submit(self, stage: str, here: bool) -> None:
            done.append(stage)
            super().submit(stage, here)

    clock = Clock()
    workers = Workers(clock, 2, {"a": 1.5, "cell1": 2.0})
    schedule(Pipeline(cells | chain), workers, clock=lambda: clock.now)
    assert done[:6] == ["a", "cell0", "cell1", "took cell0", "took a", "b"]


def test_no_place_is_filled_before_a_lost_stage_has_gone_on() -> None:
    graph = {"a": frozenset[str](), "b": frozenset({"a"}), "cell0": frozenset[str](), "cell1": frozenset[str]()}
    clock = Clock()
    workers = Placing(clock, 1, ends={"a": [End.LOST, End.DONE]})
    schedule(FakePipeline(graph), workers, clock=lambda: clock.now)
    assert [stage for stage, _ in workers.submitted] == ["a", "a", "b", "cell0", "cell1"]


def test_what_took_longest_before_goes_before_its_like() -> None:
    cells = {f"cell{number}": frozenset[str]() for number in range(4)}
    clock = Clock()
    workers = FakeWorkers(clock, 1)
    schedule(FakePipeline(cells), workers, clock=lambda: clock.now, seconds={"cell2": 9.0, "cell3": 2.0, "cell0": 1.0})
    assert [stage for stage, _ in workers.submitted] == ["cell1", "cell2", "cell3", "cell0"]  # unknown: longer


def test_one_of_each_kind_tells_how_long_its_like_take() -> None:
    cells = {f"short@{number}": 1.0 for number in range(3)} | {f"long@{number}": 5.0 for number in range(3)}

    class Polled(Placing):
        def wait(self, seconds: float) -> list[Outcome]:
            return [] if self.started else super().wait(seconds)  # so that a stage counts from when it begins

    clock = Clock()
    workers = Polled(clock, 1, cells)
    schedule(FakePipeline({cell: frozenset[str]() for cell in cells}), workers, clock=lambda: clock.now)
    order = [stage for stage, _ in workers.submitted]
    assert order == ["short@0", "short@1", "long@0", "long@1", "long@2", "short@2"]  # each chosen before one ends


def asked_at_each_wait(pipeline: FakePipeline, workers: FakeWorkers, exclusive: set[str]) -> list[list[str]]:
    """Bring all up to date; returns the stages that had been settled each time that something was waited for."""
    asked: list[list[str]] = []
    wait = workers.wait

    def watched(seconds: float) -> list[Outcome]:
        asked.append(list(pipeline.asked))
        return wait(seconds)

    workers.wait = watched  # type: ignore[method-assign]
    schedule(pipeline, workers, clock=lambda: workers.clock.now, exclusive=exclusive)
    return asked


@pytest.mark.parametrize(
    ("local", "exclusive", "early"), [(True, "", ["a", "b"]), (False, "", ["a"]), (True, "b", ["a", "c"])]
)
def test_what_is_next_is_settled_while_others_run(local: bool, exclusive: str, early: list[str]) -> None:
    graph = {"a": frozenset[str](), "b": frozenset[str](), "c": frozenset[str]()}
    pipeline = FakePipeline(graph, settled={"b": State.CACHED})
    asked = asked_at_each_wait(pipeline, FakeWorkers(Clock(), 1, local=local), {exclusive})
    assert [pipeline.there, sorted(pipeline.asked)] == [{"a", "b", "c"}, ["a", "b", "c"]]  # each once
    assert asked[0] == early


def test_nothing_is_settled_beside_a_measurement() -> None:
    pipeline = FakePipeline({"a": frozenset(), "b": frozenset({"a"}), "c": frozenset({"a"})})
    asked = asked_at_each_wait(pipeline, FakeWorkers(Clock(), 1, local=True), {"b", "c"})
    assert asked == [["a"], ["a", "b"], ["a", "b", "c"]]


@pytest.mark.parametrize(("kept_by_dvc", "exclusive", "written"), [(0, 0, set()), (1, 0, {"a"}), (0, 1, {"a"})])
def test_what_was_taken_is_written_down_at_the_end_and_before_what_it_would_disturb(
    kept_by_dvc: int, exclusive: int, written: set[str]
) -> None:
    seen = {}

    class Watching(FakeWorkers):
        def submit(self, stage: str, here: bool) -> None:
            seen[stage] = set(pipeline.written)
            super().submit(stage, here)

    graph = {"a": frozenset[str](), "b": frozenset({"a"}), "c": frozenset({"b"})}
    pipeline, clock = FakePipeline(graph, here=frozenset({"b"} if kept_by_dvc else ())), Clock()
    alone = {"b"} if exclusive else set[str]()
    schedule(pipeline, Watching(clock, 1, local=True), clock=lambda: clock.now, exclusive=alone)
    assert seen["b"] == written
    assert pipeline.written == {"a", "b", "c"}


def test_a_stage_counts_as_running_and_its_time_from_when_a_worker_begins() -> None:
    clock, seen = Clock(), []
    workers = FakeWorkers(clock, 1, lengths={"a": 3.0, "b": 5.0})
    board = schedule(
        FakePipeline({"a": frozenset(), "b": frozenset()}),
        workers,
        lambda board: seen.append(tuple(board.named(State.RUNNING))),
        lambda: clock.now,
    )
    assert {len(running) for running in seen} <= {0, 1}
    assert board.stages["b"].seconds is not None


def test_a_stage_that_dvc_refuses_is_a_failure_like_others() -> None:
    class Refusing(FakePipeline):
        def settle(self, stage: str) -> State | None:
            if stage == "a":
                raise CannotRun("no such file")
            return super().settle(stage)

    states, _ = run(Refusing({"a": frozenset(), "b": frozenset({"a"}), "c": frozenset()}))
    assert states == {"a": State.FAILED, "b": State.SKIPPED, "c": State.DONE}


@pytest.mark.parametrize("end", [End.DONE, End.UNFIT])
def test_what_workers_cannot_run_is_run_here(end: End) -> None:
    here = frozenset({"a"}) if end is End.DONE else frozenset[str]()
    _, workers = run(FakePipeline({"a": frozenset()}, here=here), ends={"a": [end, End.DONE]})
    assert workers.submitted[-1] == ("a", True)
