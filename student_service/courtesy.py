"""Heavy Python work that lets answers go first.

Loading a checkpoint is mostly Python, and so is answering with a small one. Side by side on one interpreter they slow
each other down several times over: an answer asks for the interpreter again after each of its many small operations.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# About a millisecond of work. Under full load the work gets one such slice after each wait: slow, but it ends.
_SLICE_CALLS = 2000
_WAIT_S = 0.02


@contextmanager
def giving_way(idle: threading.Event) -> Iterator[None]:
    """Run the block in slices of so many function calls; between two slices it stands still while `idle` is not set.

    No wait is longer than 20 ms, so a lock that the block holds delays an answer and never stops it. Only the calling
    thread is held up.
    """
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        if event != "call":
            return
        calls += 1
        if calls >= _SLICE_CALLS:
            calls = 0
            idle.wait(_WAIT_S)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
