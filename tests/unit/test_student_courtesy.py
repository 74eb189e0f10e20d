"""Giving way: the work waits while answers are computed, goes on all the same, and leaves nothing behind."""

import sys
import threading
import time

import pytest

from student_service.courtesy import giving_way


class Idle(threading.Event):
    """An event that notes how long each wait for it took."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        started = time.perf_counter()
        result = super().wait(timeout)
        self.waits.append(time.perf_counter() - started)
        return result


def call_often() -> int:
    def one(index: int) -> int:
        return index + 1

    return [one(index) for index in range(10_000)][-1]


def test_the_work_waits_again_and_again_but_never_for_good() -> None:
    idle = Idle()
    with giving_way(idle):
        assert call_often() == 10_000
    assert 4 <= len(idle.waits) <= 6
    assert all(seconds >= 0.015 for seconds in idle.waits)


def test_the_work_goes_straight_on_while_nothing_is_answered() -> None:
    idle = Idle()
    idle.set()
    with giving_way(idle):
        assert call_often() == 10_000
    assert sorted(idle.waits)[len(idle.waits) // 2] < 0.005


def test_what_profiled_before_profiles_afterwards() -> None:
    before = sys.getprofile()
    with pytest.raises(KeyError), giving_way(Idle()):
        raise KeyError
    assert sys.getprofile() is before
