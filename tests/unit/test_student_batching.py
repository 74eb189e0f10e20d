"""The batcher: what waits together is answered together, in order, on the weights that it came for."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from student_service.batching import Batcher
from student_service.engines.base import Update
from student_service.slots import Slot
from tests.student_kit import DEADLINE_S, EchoEngine, query
from world2vlm.errors import InvalidInputError


@pytest.fixture
def batcher() -> Iterator[Batcher]:
    batcher = Batcher(max_batch=4)
    yield batcher
    batcher.close()


@pytest.fixture
def engine() -> EchoEngine:
    return EchoEngine()


def hold_up(batcher: Batcher, slot: Slot, engine: EchoEngine) -> None:
    """Let the worker sit in a batch of its own until the gate opens."""
    engine.gate.clear()
    batcher.submit(slot, query("first"), 8)
    assert engine.entered.wait(DEADLINE_S)


def test_what_waits_goes_together_up_to_the_limit(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(7, engine)
    hold_up(batcher, slot, engine)
    futures = [batcher.submit(slot, query(f"q{index}"), 8) for index in range(6)]
    engine.gate.set()
    outcomes = [future.result(DEADLINE_S) for future in futures]
    assert engine.batches == [["first"], ["q0", "q1", "q2", "q3"], ["q4", "q5"]]
    assert [outcome.reply.text for outcome in outcomes] == [f"q{index}" for index in range(6)]
    assert {outcome.version for outcome in outcomes} == {7}
    assert all(outcome.queue_ms >= 0 and outcome.generate_ms >= 0 for outcome in outcomes)


def test_slots_and_token_limits_are_answered_side_by_side(batcher: Batcher, engine: EchoEngine) -> None:
    old, other_engine = Slot(1, engine), EchoEngine()
    new = Slot(2, other_engine)
    hold_up(batcher, old, engine)
    futures = [
        batcher.submit(old, query("a b c"), 8),
        batcher.submit(old, query("d e f"), 2),
        batcher.submit(new, query("g"), 2),
        batcher.submit(old, query("h"), 2),
    ]
    old.retire()
    engine.gate.set()
    outcomes = [future.result(DEADLINE_S) for future in futures]
    assert [(outcome.version, outcome.reply.text) for outcome in outcomes] == [
        (1, "a b c"), (1, "d e"), (2, "g"), (1, "h"),
    ]  # fmt: skip
    assert engine.batches == [["first"], ["a b c", "d e f", "h"]]
    assert old.wait_drained(DEADLINE_S) and engine.closed and not other_engine.closed


def test_a_query_joins_what_is_being_answered(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    engine.gate.clear()
    long = batcher.submit(slot, query("word " * 50), 50)
    assert engine.entered.wait(DEADLINE_S)
    short = batcher.submit(slot, query("short"), 8)
    engine.gate.set()
    assert short.result(DEADLINE_S).generate_ms < long.result(DEADLINE_S).generate_ms
    assert engine.batches == [["word " * 50], ["short"]]


def test_a_cancelled_query_is_dropped_and_lets_go_of_its_slot(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    hold_up(batcher, slot, engine)
    dropped, kept = batcher.submit(slot, query("dropped"), 8), batcher.submit(slot, query("kept"), 8)
    assert dropped.cancel()
    assert slot.holders == 2
    engine.gate.set()
    assert kept.result(DEADLINE_S).reply.text == "kept"
    assert engine.batches == [["first"], ["kept"]]


def test_cancelling_stops_a_running_query_and_then_frees_its_slot(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    engine.gate.clear()
    future = batcher.submit(slot, query("word " * 1000), 1000)
    assert engine.entered.wait(DEADLINE_S)
    future.cancel()
    slot.retire()
    assert not engine.closed
    engine.gate.set()
    assert slot.wait_drained(DEADLINE_S) and engine.closed
    assert len(engine.dropped) == 1


def test_an_engine_that_may_be_waiting_for_news_hears_of_what_comes(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    hold_up(batcher, slot, engine)
    assert engine.woken == 0
    later = batcher.submit(slot, query("later"), 8)
    assert engine.woken == 1
    engine.gate.set()
    assert later.result(DEADLINE_S).reply.text == "later"


def test_a_bad_query_fails_alone(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    hold_up(batcher, slot, engine)
    good, bad, other = (batcher.submit(slot, query(f"q{n}", images=n), 8) for n in (1, 0, 2))
    engine.gate.set()
    assert good.result(DEADLINE_S).reply.text == "q1"
    assert other.result(DEADLINE_S).reply.text == "q2"
    with pytest.raises(InvalidInputError):
        bad.result(DEADLINE_S)


def test_a_step_that_fails_fails_what_it_worked_on_and_nothing_else(batcher: Batcher) -> None:
    class OutOfMemoryEngine(EchoEngine):
        def step(self) -> list[Update]:
            updates = super().step()
            if len(updates) > 1:
                raise RuntimeError("out of memory")
            return updates

    engine = OutOfMemoryEngine()
    slot, other = Slot(1, engine), Slot(2, EchoEngine())
    hold_up(batcher, slot, engine)
    lost = [batcher.submit(slot, query(text), 8) for text in ("a b", "c")]
    fine = batcher.submit(other, query("d e"), 8)
    engine.gate.set()
    assert fine.result(DEADLINE_S).reply.text == "d e"
    for future in lost:
        with pytest.raises(RuntimeError, match="memory"):
            future.result(DEADLINE_S)
    assert slot.holders == other.holders == 0


def test_text_flows_before_the_reply(batcher: Batcher, engine: EchoEngine) -> None:
    told: list[str] = []
    outcome = batcher.submit(Slot(1, engine), query("a b c"), 8, told.append).result(DEADLINE_S)
    assert told == ["a", " b", " c"] and "".join(told) == outcome.reply.text


def test_background_queries_let_others_go_first(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    hold_up(batcher, slot, engine)
    background = batcher.submit(slot, query("background"), 8, background=True)
    foreground = batcher.submit(slot, query("foreground"), 8)
    engine.gate.set()
    assert foreground.result(DEADLINE_S) and background.result(DEADLINE_S)
    assert engine.batches == [["first"], ["foreground"], ["background"]]


def test_background_queries_are_answered_under_full_load(batcher: Batcher, engine: EchoEngine) -> None:
    slot = Slot(1, engine)
    stop = threading.Event()

    def never_let_the_queue_run_dry() -> None:
        waiting = [batcher.submit(slot, query("load"), 8) for _ in range(8)]
        while not stop.is_set():
            waiting.append(batcher.submit(slot, query("load"), 8))
            waiting.pop(0).result(DEADLINE_S)

    thread = threading.Thread(target=never_let_the_queue_run_dry)
    thread.start()
    assert batcher.submit(slot, query("background"), 8, background=True).result(DEADLINE_S).reply.text == "background"
    stop.set()
    thread.join()


def test_background_queries_take_no_room(batcher: Batcher, engine: EchoEngine) -> None:
    candidate, slot = EchoEngine(), Slot(1, engine)
    candidate.gate.clear()
    shadowed = Slot(2, candidate)
    slow = [batcher.submit(shadowed, query("so slow " * 4), 8, background=True) for _ in range(4)]
    assert candidate.entered.wait(DEADLINE_S)
    live = [batcher.submit(slot, query("live"), 8) for _ in range(4)]
    ended: list[str] = []
    for future in (*live, *slow):
        future.add_done_callback(lambda done: ended.append(done.result().reply.text))
    candidate.gate.set()
    for future in (*live, *slow):
        future.result(DEADLINE_S)
    assert engine.batches == [["live"] * 4]
    assert ended[:4] == ["live"] * 4


def test_closing_cancels_what_waits_and_lets_the_running_batch_end(engine: EchoEngine) -> None:
    batcher = Batcher(max_batch=4)
    slot = Slot(1, engine)
    engine.gate.clear()
    running = batcher.submit(slot, query("running"), 8)
    assert engine.entered.wait(DEADLINE_S)
    waiting = batcher.submit(slot, query("waiting"), 8)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(DEADLINE_S)
    engine.gate.set()
    closing.join(DEADLINE_S)
    assert running.result(DEADLINE_S).reply.text == "running"
    with pytest.raises(CancelledError):
        batcher.submit(slot, query("late"), 8).result(DEADLINE_S)
    assert slot.holders == 0
