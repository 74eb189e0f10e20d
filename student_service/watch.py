"""The watch: a version that fails once it answers everybody is taken off again by itself.

For a while after the flip the answers' own faults are counted and the canary is asked again. Only what the version did
wrong counts: an engine's error, or a probability that is none. A caller's bad input, a full queue, a deadline and a
server that cannot be reached say nothing about the weights.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from student_service.batching import CancelledQueryError, Outcome
from student_service.engines.base import EngineLostError, Query
from student_service.slots import Slot
from world2vlm.errors import InvalidInputError, OverloadedError, UnavailableError

_log = logging.getLogger(__name__)
# The canary is asked again this often, the last time at the window's end.
_CANARIES = 3
INNOCENT = (InvalidInputError, OverloadedError, UnavailableError, CancelledQueryError, TimeoutError)
"""Errors of a query that are not its version's fault; where its process died is the exception."""


@dataclass(frozen=True)
class Rules:
    """When a version is taken off again.

    Attributes:
        seconds: length of the window after the flip; 0 watches nothing.
        max_error_rate: share of requests, 0 to 1, that may fail by the version's own fault.
        min_requests: below so many requests the rate says nothing.
    """

    seconds: float
    max_error_rate: float
    min_requests: int


class Window:
    """One version's watch window. Times are in seconds of one monotonic clock; nothing here waits or locks."""

    def __init__(self, version: int, rules: Rules, now: float) -> None:
        self.version = version
        self._rules = rules
        self._end = now + rules.seconds
        interval = rules.seconds / _CANARIES
        self._canaries = [self._end - interval * left for left in reversed(range(_CANARIES))]
        self._requests = self._faults = 0

    def note(self, is_fault: bool) -> None:
        """Count one request that ended."""
        self._requests += 1
        self._faults += is_fault

    @property
    def failure(self) -> str | None:
        """Why the version must go by its error rate; None where it need not."""
        if self._requests < self._rules.min_requests or not self._faults:
            return None
        if self._faults / self._requests <= self._rules.max_error_rate:
            return None
        return f"{self._faults} of {self._requests} requests failed by its fault"

    def take_canary(self, now: float) -> bool:
        """Whether the canary is due; says so once for each time."""
        due = [moment for moment in self._canaries if moment <= now]
        self._canaries = self._canaries[len(due) :]
        return bool(due)

    def is_over(self, now: float) -> bool:
        """Whether all was seen that the window is for."""
        return now >= self._end and not self._canaries

    def seconds_left(self, now: float) -> float:
        """Until the next canary or the end."""
        return max(0.0, (self._canaries[0] if self._canaries else self._end) - now)


class Watch:
    """Watches whatever was flipped in last, in a thread that lives as long as the window.

    Args:
        rules: when a version is taken off.
        ask_canary: asks it of a version again; raises what speaks against the version.
        reject: swaps back from a version, for a reason; raises where it can't.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rules: Rules,
        ask_canary: Callable[[int], None],
        reject: Callable[[int, str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules = rules
        self._ask_canary = ask_canary
        self._reject = reject
        self._clock = clock
        self._changed = threading.Condition()
        self._window: Window | None = None
        self._threads: list[threading.Thread] = []
        self._closed = False

    def begin(self, version: int, served_s: float | None = 0.0) -> None:
        """Open a window for the version that answers from now on; an earlier version's window ends.

        Args:
            version: what answers.
            served_s: how many seconds of its window have gone by already; None: it is not watched.
        """
        is_watched = served_s is not None and served_s < self._rules.seconds and not self._closed
        now = self._clock() - (served_s or 0.0)
        window = Window(version, self._rules, now) if is_watched else None
        with self._changed:
            self._window = window
            self._changed.notify_all()
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if window is not None:
            thread = threading.Thread(target=self._run, args=(window,), name=f"watch-{version}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def observe(self, slot: Slot, query: Query, max_new_tokens: int, future: Future[Outcome]) -> None:
        """Count a live query when it ends; an `Observer`."""
        window = self._window
        if window is not None and window.version == slot.version:
            future.add_done_callback(partial(self._note, window))

    def close(self) -> None:
        """End the window; nothing is taken off any more."""
        self._closed = True
        with self._changed:
            self._window = None
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for what was under way when the watch was closed."""
        for thread in self._threads:
            thread.join()

    def _note(self, window: Window, future: Future[Outcome]) -> None:
        fault = is_fault(future)
        if fault is None:
            return
        with self._changed:
            window.note(fault)
            if window.failure is not None:
                self._changed.notify_all()

    def _run(self, window: Window) -> None:
        while True:
            with self._changed:
                left = window.seconds_left(self._clock())
                self._changed.wait_for(lambda: self._window is not window or window.failure is not None, left)
                if self._window is not window:
                    return
                reason = window.failure
            if reason is None and window.take_canary(self._clock()):
                reason = self._canary_failure(window.version)
            if reason is not None:
                self._take_off(window, reason)
                return
            if window.is_over(self._clock()):
                _log.info("version %d held through its watch window", window.version)
                return

    def _canary_failure(self, version: int) -> str | None:
        try:
            self._ask_canary(version)
        except INNOCENT as error:
            _log.warning("version %d: the canary could not be asked: %s", version, error)
        except Exception as error:
            _log.warning("version %d fails the canary while it serves", version, exc_info=error)
            return f"its canary fails: {error}"
        return None

    def _take_off(self, window: Window, reason: str) -> None:
        with self._changed:
            if self._window is not window:
                return
            self._window = None
        _log.error("version %d is taken off: %s", window.version, reason)
        try:
            self._reject(window.version, reason)
        except Exception:
            _log.exception("version %d goes on serving: there is nothing to go back to", window.version)


def is_fault(future: Future[Outcome]) -> bool | None:
    """Whether a query that ended failed by its version's own fault; None where it tells nothing about the version."""
    if future.cancelled():
        return None
    error = future.exception()
    if error is None:
        return not future.result().reply.has_probability
    if isinstance(error, EngineLostError):
        return True
    return None if isinstance(error, INNOCENT) else True
