from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from trainer.attempts import Attempts, forgive
from trainer.pieces import NO_TRAINING, Piece
from trainer.plans import make_plan
from trainer.runner import RoundRunner
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.rounds import STEP_FILES, RoundState
from world2vlm.store import Store

RESULTS = {"dataset": "dataset", "distil": "training", "evaluate": "evaluation", "promote": "promotion"}


class QueueInMemory:
    """A coordinator for one thread: what is sent waits in `queue`."""

    def __init__(self) -> None:
        self.queue: list[Piece] = []
        self.leased: dict[str, str] = {}

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        yield

    @contextmanager
    def lease(self, key: str, delivery: str) -> Iterator[bool]:
        mine = self.leased.setdefault(key, delivery) == delivery
        try:
            yield mine
        finally:
            if mine:
                self.leased.pop(key)

    def busy(self) -> Collection[str]:
        return {piece.key for piece in self.queue} | set(self.leased)

    def enqueue(self, pieces: Iterable[Piece]) -> None:
        self.queue.extend(pieces)


class WritingSteps:
    """Writes results without doing the work; `before` may interfere."""

    def __init__(self, store: Store, before: Callable[[Piece], None] = lambda piece: None) -> None:
        self._store = store
        self._before = before
        self.done: list[str] = []

    def do(self, piece: Piece) -> None:
        self._before(piece)
        self.done.append(piece.key)
        state = RoundState(self._store, piece.round_id)
        if piece.step == "imagine":
            state.write_shard(piece.index, [], {})
        else:
            state.write_step(RESULTS[piece.step], {})


@pytest.fixture
def store() -> Store:
    store = Store("memory://runner")
    store.delete("rounds")
    return store


def start(store: Store, **changes: Any) -> RoundState:
    plan = make_plan(
        "r", student="s", train_scenes=2, test_scenes=2, calibration_scenes=2, scenes_per_shard=2, **changes
    )
    state = RoundState(store, "r")
    state.create(plan)
    return state


def drain(runner: RoundRunner, queue: QueueInMemory) -> None:
    for number in range(100):
        if not queue.queue:
            return
        runner.run(queue.queue.pop(0), f"delivery-{number}")
    raise AssertionError("the round never ends")


def test_a_round_runs_every_piece_once_in_order(store: Store) -> None:
    state, queue, steps = start(store), QueueInMemory(), WritingSteps(store)
    runner = RoundRunner(store, steps, queue, "node")
    runner.advance("r")
    drain(runner, queue)
    shards = [f"r/imagine/{index:03d}" for index in range(3)]
    assert steps.done == [*shards, "r/dataset/000", "r/distil/000", "r/evaluate/000", "r/promote/000"]
    assert state.status() == "done"
    assert all(state.read_step(name) == {} for name in STEP_FILES)


def test_advance_sends_only_what_is_neither_done_nor_queued_nor_in_hand(store: Store) -> None:
    state, queue = start(store), QueueInMemory()
    runner = RoundRunner(store, WritingSteps(store), queue, "node")
    state.write_shard(0, [], {})
    queue.leased["r/imagine/001"] = "elsewhere"
    for _ in range(3):
        runner.advance("r")
    assert [piece.key for piece in queue.queue] == ["r/imagine/002"]


def test_a_second_delivery_does_nothing(store: Store) -> None:
    start(store)
    queue, steps = QueueInMemory(), WritingSteps(store)
    runner = RoundRunner(store, steps, queue, "node")
    runner.run(Piece("r", "imagine", 0), "one")
    runner.run(Piece("r", "imagine", 0), "two")
    queue.leased["r/imagine/001"] = "elsewhere"
    runner.run(Piece("r", "imagine", 1), "three")
    assert steps.done == ["r/imagine/000"]


def test_reconcile_brings_back_what_a_lost_broker_dropped(store: Store) -> None:
    state, queue = start(store), QueueInMemory()
    runner = RoundRunner(store, WritingSteps(store), queue, "node")
    runner.advance("r")
    queue.queue.clear()
    runner.reconcile()
    drain(runner, queue)
    assert state.status() == "done"


def test_an_error_that_cannot_go_away_stops_the_round_with_its_reason(store: Store) -> None:
    def refuse(piece: Piece) -> None:
        if piece.step == "distil":
            raise InvalidInputError("no such recipe")

    state, queue = start(store), QueueInMemory()
    runner = RoundRunner(store, WritingSteps(store, refuse), queue, "node")
    runner.advance("r")
    drain(runner, queue)
    stopped = state.stopped()
    assert state.status() == "stopped" and stopped is not None
    assert stopped["reason"] == "r/distil/000: no such recipe"
    assert stopped["figures"] == {"code": "invalid_input"}


def test_a_service_that_is_away_costs_no_attempt(store: Store) -> None:
    def away(piece: Piece) -> None:
        raise UnavailableError("the teacher is away")

    start(store)
    queue, piece = QueueInMemory(), Piece("r", "imagine", 0)
    runner = RoundRunner(store, WritingSteps(store, away), queue, "node")
    for number in range(5):
        with pytest.raises(UnavailableError):
            runner.run(piece, str(number))
    assert Attempts(store, piece).count() == 0
    runner.reconcile()
    assert piece in queue.queue


def test_a_piece_that_fails_three_times_stops_the_round(store: Store) -> None:
    tries = []

    def fail(piece: Piece) -> None:
        if piece.index == 0:
            tries.append(piece)
            raise RuntimeError("a bug")

    state, queue = start(store, recipe=NO_TRAINING), QueueInMemory()
    runner = RoundRunner(store, WritingSteps(store, fail), queue, "node")
    runner.run(Piece("r", "imagine", 0), "first")
    drain(runner, queue)
    stopped = state.stopped()
    assert len(tries) == 3 and stopped is not None
    assert "r/imagine/000 was tried 3 times" in stopped["reason"]


def test_a_worker_that_was_told_to_stop_is_forgiven(store: Store) -> None:
    start(store)
    piece = Piece("r", "distil")
    for node in ("mine", "mine", "other"):
        Attempts(store, piece).begin(node)
    forgive(store, "r", "mine")
    assert Attempts(store, piece).count() == 1


def test_a_job_ends_with_its_dataset(store: Store) -> None:
    start(store, recipe=NO_TRAINING)
    queue, steps = QueueInMemory(), WritingSteps(store)
    runner = RoundRunner(store, steps, queue, "node")
    runner.advance("r")
    drain(runner, queue)
    assert steps.done[-1] == "r/dataset/000"
