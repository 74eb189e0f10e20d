"""Slots: an engine lives exactly as long as somebody needs it."""

import threading

import pytest

from student_service.slots import Serving, Slot
from tests.student_kit import DEADLINE_S, EchoEngine
from world2vlm.errors import UnavailableError


def test_nothing_serves_before_the_first_flip() -> None:
    serving = Serving()
    assert serving.version is None
    with pytest.raises(UnavailableError), serving.lease():
        pass


def test_a_lease_keeps_its_slot_alive_across_a_flip() -> None:
    serving = Serving()
    old, new = Slot(1, EchoEngine()), Slot(2, EchoEngine())
    assert serving.flip(old) is None
    with serving.lease() as leased:
        assert serving.flip(new) is old
        assert serving.version == 2
        assert leased is old and not old.engine.closed  # type: ignore[attr-defined]
        assert not old.wait_drained(0)
        with serving.lease() as later:
            assert later is new
    assert old.wait_drained(0) and old.engine.closed  # type: ignore[attr-defined]
    assert not new.engine.closed  # type: ignore[attr-defined]


def test_an_unused_slot_closes_at_once() -> None:
    engine = EchoEngine()
    slot = Slot(1, engine)
    slot.retire()
    assert engine.closed
    with pytest.raises(RuntimeError, match="closed"):
        slot.hold()


def test_no_lease_ever_sees_a_closed_engine() -> None:
    serving = Serving()
    serving.flip(Slot(0, EchoEngine()))
    seen: list[bool] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with serving.lease() as slot:
                seen.append(slot.engine.closed)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    retired = [serving.flip(Slot(version, EchoEngine())) for version in range(1, 300)]
    stop.set()
    for thread in threads:
        thread.join()
    assert seen and not any(seen)
    assert all(slot is not None and slot.wait_drained(DEADLINE_S) for slot in retired)
