"""The watch: what counts against a version, when it is too much, and what happens then."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from student_service.batching import CancelledQueryError, Outcome
from student_service.engines.base import EngineLostError, Reply
from student_service.slots import Slot
from student_service.watch import Rules, Watch, Window, is_fault
from tests.student_kit import DEADLINE_S, EchoEngine, query
from world2vlm.errors import (
    GateRejectedError,
    InvalidInputError,
    OverloadedError,
    PreconditionError,
    UnavailableError,
)

RULES = Rules(seconds=60.0, max_error_rate=0.1, min_requests=10)


def ended(outcome: Exception | float | None) -> Future[Outcome]:
    """A query that ended with an error, or with a reply of some probability, or was cancelled."""
    future: Future[Outcome] = Future()
    if outcome is None:
        future.cancel()
    elif isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(Outcome(Reply("yes", outcome, 1, 1), 1, 0.0, 0.0))
    return future


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (0.5, False),
        (1.0, False),
        (math.nan, True),
        (1.5, True),
        (-0.1, True),
        (RuntimeError("out of memory"), True),
        (InvalidInputError("the question is empty"), None),
        (OverloadedError("full"), None),
        (UnavailableError("nobody there"), None),
        (EngineLostError("its process died"), True),
        (CancelledQueryError(), None),
        (None, None),
    ],
)
def test_only_the_versions_own_faults_count(outcome: Exception | float | None, expected: bool | None) -> None:
    assert is_fault(ended(outcome)) is expected


def noted(faults: int, good: int, rules: Rules = RULES) -> Window:
    window = Window(2, rules, now=0.0)
    for index in range(faults + good):
        window.note(index < faults)
    return window


@pytest.mark.parametrize(
    ("faults", "good", "fails"),
    [(9, 0, False), (10, 0, True), (1, 9, False), (2, 8, True), (0, 1000, False), (100, 900, False), (101, 900, True)],
)
def test_too_many_faults_of_enough_requests_are_a_failure(faults: int, good: int, fails: bool) -> None:
    failure = noted(faults, good).failure
    assert failure == (f"{faults} of {faults + good} requests failed by its fault" if fails else None)


def test_a_rate_of_zero_forgives_no_fault_and_punishes_none() -> None:
    strict = Rules(60.0, 0.0, 1)
    assert noted(0, 5, strict).failure is None
    assert noted(1, 999, strict).failure is not None


def test_the_canary_is_due_three_times_and_the_window_ends_with_the_last() -> None:
    window = Window(2, RULES, now=100.0)
    assert window.seconds_left(100.0) == 20.0 and not window.take_canary(119.9)
    assert window.take_canary(120.0) and not window.take_canary(120.0)
    assert window.seconds_left(130.0) == 10.0
    assert window.take_canary(145.0) and not window.is_over(159.9)
    assert not window.is_over(160.0), "the last canary is still to be asked"
    assert window.take_canary(161.0) and window.is_over(161.0) and window.seconds_left(161.0) == 0.0


def test_canaries_that_were_missed_are_asked_once() -> None:
    window = Window(2, RULES, now=0.0)
    assert window.take_canary(50.0) and not window.take_canary(50.0)
    assert window.take_canary(60.0)


class Service:
    """What a watch talks to: it notes what the watch asks for, and answers the canary with `verdict`."""

    def __init__(self, verdict: Exception | None = None) -> None:
        self.asked: list[int] = []
        self.rejected: list[tuple[int, str]] = []
        self.verdict = verdict
        self.is_stuck = False

    def ask_canary(self, version: int) -> None:
        self.asked.append(version)
        if self.verdict is not None:
            raise self.verdict

    def reject(self, version: int, reason: str) -> None:
        self.rejected.append((version, reason))
        if self.is_stuck:
            raise PreconditionError("no other version")


@pytest.fixture
def service() -> Service:
    return Service()


@contextmanager
def watching(service: Service, seconds: float) -> Iterator[Watch]:
    watch = Watch(Rules(seconds, 0.1, 10), service.ask_canary, service.reject)
    try:
        yield watch
    finally:
        watch.close()
        watch.join()


def ask(watch: Watch, version: int, *outcomes: Exception | float) -> None:
    """Let queries of a version begin, and end."""
    slot = Slot(version, EchoEngine())
    for outcome in outcomes:
        watch.observe(slot, query("where?"), 8, ended(outcome))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")]


FAULT = RuntimeError("a kernel failed")


def test_a_version_that_fails_too_often_is_taken_off_at_once(service: Service) -> None:
    with watching(service, seconds=3600) as watch:
        watch.begin(2)
        ask(watch, 2, *[0.5] * 8, FAULT, FAULT)
        wait_until(lambda: service.rejected)
        assert service.rejected == [(2, "2 of 10 requests failed by its fault")]
        wait_until(lambda: not threads())
        ask(watch, 2, *[FAULT] * 20)
    assert len(service.rejected) == 1 and service.asked == []


def test_callers_mistakes_take_nothing_off(service: Service) -> None:
    with watching(service, seconds=3600) as watch:
        watch.begin(2)
        ask(watch, 2, *[InvalidInputError("too many images")] * 50, *[0.5] * 20, FAULT, FAULT)
        ask(watch, 1, *[FAULT] * 50)  # the version before, which still drains
        assert threads() == ["watch-2"]
    assert service.rejected == []


def test_a_canary_that_fails_takes_the_version_off() -> None:
    service = Service(GateRejectedError("canary", 3, "it answers 3 of the canary's questions in their form"))
    with watching(service, seconds=0.3) as watch:
        watch.begin(2)
        wait_until(lambda: service.rejected)
    assert service.asked == [2]
    assert service.rejected == [(2, "its canary fails: it answers 3 of the canary's questions in their form")]


@pytest.mark.parametrize("verdict", [None, UnavailableError("the engine's server is away"), CancelledQueryError()])
def test_a_version_that_holds_is_left_alone(verdict: Exception | None) -> None:
    service = Service(verdict)
    with watching(service, seconds=0.3) as watch:
        watch.begin(2)
        wait_until(lambda: not threads())
    assert 1 <= len(service.asked) <= 3 and service.rejected == []


def test_the_next_flip_ends_a_window(service: Service) -> None:
    with watching(service, seconds=3600) as watch:
        watch.begin(2)
        watch.begin(3)
        wait_until(lambda: threads() == ["watch-3"])
        ask(watch, 2, *[FAULT] * 20)
        watch.begin(2, None)  # somebody went back
        wait_until(lambda: not threads())
        ask(watch, 2, *[FAULT] * 20)
    assert service.rejected == []


def test_what_has_held_long_enough_is_not_watched(service: Service) -> None:
    with watching(service, seconds=60) as watch:
        for served_s in (None, 60.0, 1e6):
            watch.begin(2, served_s)
            assert not threads()
        watch.begin(2, 59.0)
        assert threads() == ["watch-2"]
        watch.close()
        watch.begin(3)
        wait_until(lambda: not threads())


def test_nothing_to_go_back_to_is_survived(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.is_stuck = True
    with watching(service, seconds=3600) as watch:
        watch.begin(1)
        ask(watch, 1, *[FAULT] * 10)
        wait_until(lambda: not threads())
    assert len(service.rejected) == 1 and "there is nothing to go back to" in caplog.text
