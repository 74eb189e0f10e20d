"""The small cache: each value is made once, and what fails is not kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from teacher_service.recent import Recent


def test_the_oldest_falls_out_and_is_made_again() -> None:
    made: list[str] = []
    recent: Recent[str, str] = Recent(2)
    for key in "abacab":
        assert recent.get(key, lambda key=key: made.append(key) or key.upper()) == key.upper()
    assert "".join(made) == "abcb"


def test_several_threads_wait_for_the_one_that_makes_it() -> None:
    recent: Recent[int, int] = Recent(2)
    gate, made = threading.Event(), []

    def make() -> int:
        made.append(gate.wait(10))
        return 5

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(recent.get, 1, make) for _ in range(4)]
        gate.set()
        assert [each.result(10) for each in asked] == [5] * 4
    assert made == [True]


def test_what_fails_is_not_kept() -> None:
    recent: Recent[int, int] = Recent(2)
    with pytest.raises(ZeroDivisionError):
        recent.get(1, lambda: 1 // 0)
    assert recent.get(1, lambda: 7) == 7
