"""Hands on every stage as soon as what it needs is there. Knows the order and the states, not what a stage is."""

import time
from collections.abc import Callable, Container, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from statistics import fmean
from typing import Protocol

ATTEMPTS = 3  # of a stage whose worker was lost, the last one on this machine's own workspace
POLL_SECONDS = 1.0  # after which the display changes, if nothing ends before
WRITE_SECONDS = 600.0  # DVC takes seconds to write all of a long dvc.lock, and its run cache knows until then


class CannotRun(Exception):  # noqa: N818 - of one stage, not of the run
    """DVC refuses a stage before it is run, as where a file that it reads is missing; the message says why."""


class State(Enum):
    """Where a stage stands, in the words of the display."""

    WAITING = "waiting"
    HANDED_ON = "handed on"  # waits for a worker with room for it
    RUNNING = "running"
    UNCHANGED = "unchanged"
    CACHED = "from the run cache"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


FINISHED = frozenset({State.UNCHANGED, State.CACHED, State.DONE})
UNFINISHED = frozenset({State.WAITING, State.HANDED_ON, State.RUNNING})


class End(Enum):
    """How a run of a stage ended."""

    DONE = "done"
    FAILED = "failed"  # as it would anywhere
    LOST = "lost"  # the worker or the way to it, so that it may succeed elsewhere
    UNFIT = "unfit"  # the worker lacks what only this machine's workspace has


@dataclass(frozen=True)
class Outcome:
    """What came of handing a stage on."""

    stage: str
    end: End
    message: str = ""


class Pipeline(Protocol):
    """What the scheduler asks of DVC."""

    upstream: Mapping[str, frozenset[str]]  # stage -> the stages that it needs, in an order in which they can run

    def settle(self, stage: str) -> State | None:
        """Return UNCHANGED or CACHED if the stage need not run, None if it must; what it needs is there.

        Raises CannotRun if it cannot run anywhere.
        """

    def take(self, stages: Sequence[str]) -> Mapping[str, str]:
        """Take what was run into the workspace; a message for each stage whose results are not there."""

    def stays_here(self, stage: str) -> bool:
        """Whether only this machine's workspace can run it."""

    def write(self, after: float = 0.0) -> None:
        """Write down what was taken, for whoever reads the workspace next, if the last time was so many seconds ago."""


class Workers(Protocol):
    """What the scheduler asks of Ray."""

    def room(self, handed_on: Sequence[str]) -> int:
        """Return how many more stages to hand on while these wait for a worker: few, so that a better one is next."""

    def may_stay(self, stage: str) -> bool:
        """Whether a stage beside which no other runs may as well run in this machine's own workspace."""

    def submit(self, stage: str, here: bool) -> None:
        """Hand a stage on: `here` to this machine's own workspace, otherwise to whatever has room for it."""

    def prepare(self) -> None:
        """Begin to start what stages elsewhere need and takes seconds to start, while one runs here."""

    def dismiss(self) -> None:
        """Begin to end what only stages elsewhere need: none of them is left."""

    def begun(self) -> list[str]:
        """Return the stages that have begun since the last call."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Return what has ended, after at most so many seconds."""


@dataclass
class Progress:
    """State of one stage."""

    state: State = State.WAITING
    started: float | None = None
    seconds: float | None = None  # of its last run
    attempts: int = 0
    must_run: bool = False  # since nothing else brings it up to date
    message: str = ""


@dataclass
class Board:
    """The state of every stage, in the pipeline's order."""

    upstream: Mapping[str, frozenset[str]]
    seconds: Mapping[str, float] = field(default_factory=dict)  # that stages took before, where that is known
    exclusive: Container[str] = frozenset()  # beside which nothing runs
    stages: dict[str, Progress] = field(init=False)
    _known: dict[str, float] = field(init=False)  # `seconds`, and what stages took in this run
    _below: dict[str, float] = field(init=False)  # seconds of the longest way from each on, itself included
    _depth: dict[str, int] = field(init=False)  # stages of the longest way to each

    def __post_init__(self) -> None:
        self.stages = {stage: Progress() for stage in self.upstream}
        self._known = dict(self.seconds)
        self._weigh()
        self._depth = {}
        for stage, needs in self.upstream.items():
            self._depth[stage] = 1 + max((self._depth[needed] for needed in needs), default=0)

    def _weigh(self) -> None:
        """Work out how long the way from each stage on is expected to take."""
        own = self._expected()
        self._below = dict(own)
        for stage in reversed(list(self.upstream)):
            for needed in self.upstream[stage]:
                self._below[needed] = max(self._below[needed], own[needed] + self._below[stage])

    def _expected(self) -> dict[str, float]:
        """Return seconds of each stage: what it took last, or what its like took on average, such as other evaluations.

        Where nothing of its kind is known it counts as longer than all, so that one of each kind runs early and tells.
        """
        kinds: dict[str, list[float]] = {}
        for stage, seconds in self._known.items():
            kinds.setdefault(kind(stage), []).append(seconds)
        unknown = 2 * max(self._known.values(), default=1.0)
        likely = {name: fmean(found) for name, found in kinds.items()}
        return {stage: self._known.get(stage, likely.get(kind(stage), unknown)) for stage in self.upstream}

    def next(self, ended: Set[str] = frozenset()) -> str | None:
        """Return the most urgent stage that waits for nothing more: of those with the longest way to go the deepest.

        One beside which nothing runs comes last, and not while another waits for a worker, since Ray might start it
        before that. None, too, where the results of `ended` have to be taken first: where they make a more urgent one
        ready, or where nothing is to run beside the next.
        """
        waits = any(stage not in self.exclusive for stage in self.named(State.HANDED_ON))
        ready = [
            stage
            for stage, progress in self.stages.items()
            if progress.state is State.WAITING
            and not (waits and stage in self.exclusive)
            and all(needed in ended or self.stages[needed].state in FINISHED for needed in self.upstream[stage])
        ]

        def order(stage: str) -> tuple[bool, float, int, bool]:
            return stage in self.exclusive, -self._below[stage], -self._depth[stage], bool(self.upstream[stage] & ended)

        first = min(ready, key=order, default=None)
        return None if first and ended and (first in self.exclusive or self.upstream[first] & ended) else first

    def hand_on(self, stage: str) -> None:
        """Note that the stage is to run."""
        progress = self.stages[stage]
        progress.state, progress.started, progress.attempts = State.HANDED_ON, None, progress.attempts + 1

    def begin(self, stage: str, now: float) -> None:
        """Note that the stage runs."""
        progress = self.stages[stage]
        if progress.state is State.HANDED_ON:
            progress.state, progress.started = State.RUNNING, now

    def end(self, stage: str, state: State, now: float, message: str = "") -> None:
        """Note how it ended; what depends on a failed one is skipped."""
        progress = self.stages[stage]
        progress.state, progress.message = state, message
        progress.seconds = None if progress.started is None else now - progress.started
        if state is State.DONE and progress.seconds is not None:
            self._known[stage] = progress.seconds
            self._weigh()
        if state is State.FAILED:
            for dependent in self._dependents(stage):
                self.stages[dependent].state = State.SKIPPED

    def runs_alone(self, stage: str) -> bool:
        """Whether nothing else runs, nor will before this stage has ended."""
        if stage in self.exclusive:
            return not self.busy
        unfinished = {other for other, progress in self.stages.items() if progress.state in UNFINISHED}
        return unfinished - {stage} <= self._dependents(stage)

    @property
    def busy(self) -> bool:
        """Whether a stage runs or waits for a worker."""
        return bool(self.named(State.HANDED_ON) or self.named(State.RUNNING))

    def _dependents(self, stage: str) -> set[str]:
        found: set[str] = set()
        for other, needed in self.upstream.items():  # which is ordered
            if needed & (found | {stage}):
                found.add(other)
        return found

    def named(self, state: State) -> list[str]:
        """List the stages in a state."""
        return [stage for stage, progress in self.stages.items() if progress.state is state]


def kind(stage: str) -> str:
    """Return the name of the stage that a cell belongs to: `glue-eval` for `glue-eval@bert-CoLA-42`."""
    return stage.partition("@")[0]


def schedule(
    pipeline: Pipeline,
    workers: Workers,
    watch: Callable[[Board], None] = lambda board: None,
    clock: Callable[[], float] = time.monotonic,
    seconds: Mapping[str, float] | None = None,
    exclusive: Container[str] = frozenset(),
) -> Board:
    """Bring every stage up to date, as many at once as there is room for; a failure stops only what depends on it.

    What most of the remaining time waits for goes first, as far as that is known: `seconds` tells what stages took
    before, and this run what their like take. `exclusive` stages, beside which nothing runs, go when no other can. One
    that all others wait for may run in this workspace.
    """
    board = Board(pipeline.upstream, seconds or {}, exclusive)
    try:
        _schedule(board, pipeline, workers, watch, clock)
    finally:
        pipeline.write()
    return board


def _schedule(
    board: Board, pipeline: Pipeline, workers: Workers, watch: Callable[[Board], None], clock: Callable[[], float]
) -> None:
    while True:
        _hand_on(board, pipeline, workers, watch, clock)
        if not board.busy:
            return
        _look_ahead(board, pipeline, workers, clock)
        outcomes = workers.wait(POLL_SECONDS)
        for stage in workers.begun():
            board.begin(stage, clock())
        if all(outcome.end is End.DONE for outcome in outcomes):  # taking results takes tenths of a second
            _hand_on(board, pipeline, workers, watch, clock, frozenset(outcome.stage for outcome in outcomes))
        _collect(outcomes, pipeline, workers, board, clock)
        pipeline.write(WRITE_SECONDS)
        watch(board)


def _hand_on(
    board: Board,
    pipeline: Pipeline,
    workers: Workers,
    watch: Callable[[Board], None],
    clock: Callable[[], float],
    ended: Set[str] = frozenset(),
) -> None:
    """Hand on what is ready, the most urgent first, until there is no more room; the results of `ended` come later."""
    while workers.room(board.named(State.HANDED_ON)) > 0 and (stage := board.next(ended)):
        may_stay = workers.may_stay(stage)
        if may_stay and board.busy and stage in board.exclusive:
            return  # it would have to wait, and something more urgent may become ready before
        if _settle(stage, board, pipeline, clock):
            alone = may_stay and board.runs_alone(stage)
            others = (other for other in board.named(State.WAITING) if other != stage)
            go_on = alone and not all(map(pipeline.stays_here, others))  # elsewhere, after it
            if alone and not go_on:
                workers.dismiss()
            _submit(stage, alone, board, pipeline, workers)
            if alone:
                board.begin(stage, clock())
            if go_on and stage not in board.exclusive:
                workers.prepare()
        watch(board)


def _look_ahead(board: Board, pipeline: Pipeline, workers: Workers, clock: Callable[[], float]) -> None:
    """Settle what is likely to be next while others run, so that no place stays empty for it when one ends.

    Not beside a measurement, nor on a cluster, where more is handed on than runs and settling may have to wait for the
    remote, nor for what asks for a GPU, which runs for longer than that.
    """
    stage, busy = board.next(), {*board.named(State.HANDED_ON), *board.named(State.RUNNING)}
    if stage and not any(one in board.exclusive for one in (stage, *busy)) and workers.may_stay(stage):
        _settle(stage, board, pipeline, clock)


def _settle(stage: str, board: Board, pipeline: Pipeline, clock: Callable[[], float]) -> bool:
    """Bring the stage up to date if that takes no execution; whether it takes one."""
    if not board.stages[stage].must_run:
        try:
            settled = pipeline.settle(stage)
        except CannotRun as error:
            board.end(stage, State.FAILED, clock(), str(error))
            return False
        if settled:
            board.end(stage, settled, clock())
            return False
        board.stages[stage].must_run = True
    return True


def _submit(stage: str, here: bool, board: Board, pipeline: Pipeline, workers: Workers) -> None:
    """Hand the stage on, to this machine's own workspace if it is to run `here` or can run nowhere else."""
    board.hand_on(stage)
    here = here or pipeline.stays_here(stage)
    # DVC is to write no stage down before those that it needs, and writing would disturb a measurement.
    if here and (pipeline.stays_here(stage) or stage in board.exclusive):
        pipeline.write()
    workers.submit(stage, here)


def _collect(
    outcomes: Sequence[Outcome], pipeline: Pipeline, workers: Workers, board: Board, clock: Callable[[], float]
) -> None:
    missing = pipeline.take([outcome.stage for outcome in outcomes if outcome.end is End.DONE])
    for outcome in outcomes:
        stage, message = outcome.stage, missing.get(outcome.stage, outcome.message)
        if outcome.end is End.DONE and stage not in missing:
            board.end(stage, State.DONE, clock())
        elif outcome.end is End.FAILED or board.stages[stage].attempts == ATTEMPTS:
            board.end(stage, State.FAILED, clock(), message)
        else:
            board.stages[stage].message = message
            last = board.stages[stage].attempts == ATTEMPTS - 1
            alone = stage in board.exclusive and workers.may_stay(stage)
            changed = outcome.end is End.UNFIT or stage in missing  # workers have the code as it was
            _submit(stage, alone or last or changed, board, pipeline, workers)
