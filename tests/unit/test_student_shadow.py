"""Shadow mode: a candidate is asked what others are asked, never in their way, and nobody hears it."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from student_service.batching import Batcher, Outcome
from student_service.engines.base import Query, Update
from student_service.shadow import AGREEMENT, ANSWERS, Shadow, agreement
from student_service.slots import Slot
from tests.student_kit import DEADLINE_S, EchoEngine, png


@pytest.mark.parametrize(
    ("task", "served", "candidate", "expected"),
    [
        ("", "a chair", "a chair", 1.0),
        ("", "a chair", "the chair", 0.0),
        ("A4", "true", "true", 1.0),
        ("D2", "yes", "no", 0.0),
        ("A1", "move left 1 meters", "move left 1.1 meters", 1.0),
        ("A1", "move left 1 meters", "move right 1 meters", 0.0),
        ("D1", "[0, 0, 100, 100]", "[50, 0, 150, 100]", 1 / 3),
        ("D1", "[0, 0, 100, 100]", "nowhere", 0.0),
        ("D1", "nowhere", "nowhere", 1.0),
        ("D1", "nowhere", "[0, 0, 100, 100]", 0.0),
    ],
)
def test_agreement_is_the_tasks_own_measure(task: str, served: str, candidate: str, expected: float) -> None:
    assert agreement(task, served, candidate) == pytest.approx(expected)


class Stage:
    """A served engine, a candidate, and the shadow between them."""

    def __init__(self, batcher: Batcher, candidate: EchoEngine, share: float) -> None:
        self.batcher = batcher
        self.engine, self.candidate = EchoEngine(), candidate
        self.slot, shadowed = Slot(1, self.engine), Slot(2, candidate)
        self.shadow = Shadow(shadowed, share, batcher)
        self._shadowed = shadowed
        batcher.observers.append(self.shadow.observe)
        self._before = {result: self._count(result) for result in ("answered", "failed", "dropped")}
        self._agreement = AGREEMENT.labels("D2")._value.get()

    def submit(self, text: str = "no") -> Future[Outcome]:
        return self.batcher.submit(self.slot, Query((png(),), text, "D2"), 8)

    def ask(self, text: str = "no") -> None:
        """Ask a live question, and let end what follows from it."""
        assert self.submit(text).result(DEADLINE_S).version == 1
        self.settle()

    def settle(self) -> None:
        """Until all that was asked has ended, for the candidate, too."""
        deadline = time.monotonic() + DEADLINE_S
        while self.shadow._live or self.shadow._asked is not None:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def counts(self) -> dict[str, float]:
        return {result: self._count(result) - before for result, before in self._before.items()}

    def agreed(self) -> float:
        return float(AGREEMENT.labels("D2")._value.get() - self._agreement)

    @staticmethod
    def _count(result: str) -> float:
        return float(ANSWERS.labels("D2", result)._value.get())


@contextmanager
def stage(candidate: EchoEngine, share: float = 1.0) -> Iterator[Stage]:
    batcher = Batcher(max_batch=4)
    made = Stage(batcher, candidate, share)
    try:
        yield made
    finally:
        candidate.gate.set()
        made.shadow.close()
        batcher.close()
        assert made._shadowed.wait_drained(DEADLINE_S) and candidate.closed


def test_answers_are_compared() -> None:
    with stage(EchoEngine("yes")) as on:
        on.ask("no")
        on.ask("yes")
        assert on.candidate.batches == [["no"], ["yes"]]
    assert on.counts() == {"answered": 2, "failed": 0, "dropped": 0}
    assert on.agreed() == 1.0


def test_the_share_is_drawn_the_same_way_each_time() -> None:
    asked = []
    for _ in range(2):
        with stage(EchoEngine(), share=0.3) as on:
            for index in range(30):
                on.ask(f"q{index}")
        asked.append(on.candidate.batches)
    assert asked[0] == asked[1] and 3 <= len(asked[0]) <= 15


def test_a_live_query_stops_a_candidate_that_is_answering() -> None:
    with stage(EchoEngine("yes yes yes")) as on:
        on.candidate.gate.clear()
        assert on.submit().result(DEADLINE_S).version == 1
        assert on.candidate.entered.wait(DEADLINE_S)
        live = on.submit()
        on.candidate.gate.set()
        assert live.result(DEADLINE_S).version == 1
        on.settle()
        assert len(on.candidate.dropped) == 1
    assert on.counts() == {"answered": 1, "failed": 0, "dropped": 1}


def test_a_candidate_gets_nothing_while_live_queries_wait() -> None:
    with stage(EchoEngine()) as on:
        on.engine.gate.clear()
        futures = [on.submit() for _ in range(10)]
        on.engine.gate.set()
        for future in futures:
            future.result(DEADLINE_S)
        on.settle()
    assert on.counts() == {"answered": 1, "failed": 0, "dropped": 9}
    assert len(on.candidate.batches) == 1


def test_a_candidate_that_fails_harms_nobody() -> None:
    class Fails(EchoEngine):
        def step(self) -> list[Update]:
            raise RuntimeError("out of memory")

    with stage(Fails()) as on:
        for _ in range(3):
            on.ask()
    assert on.counts() == {"answered": 0, "failed": 3, "dropped": 0}


def test_a_served_version_is_not_compared_with_itself() -> None:
    with stage(EchoEngine()) as on:
        on.slot = Slot(2, on.engine)
        assert on.submit().result(DEADLINE_S).version == 2
        on.settle()
    assert on.candidate.batches == []


def test_a_closed_shadow_asks_nothing() -> None:
    with stage(EchoEngine()) as on:
        on.shadow.close()
        on.ask()
        assert on.candidate.closed
    assert on.candidate.batches == [] and on.counts()["answered"] == 0
