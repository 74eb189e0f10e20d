"""A trajectory to make, and one being made, once, for everybody who waits for it."""

import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from teacher_service.worlds.base import ImagineSpec

# A trajectory under this stays in memory; longer ones wait for their readers on disk.
_IN_MEMORY_BYTES = 4 << 20

Listener = Callable[[], None]


@dataclass(frozen=True)
class Step:
    """How far a world is that makes all frames at once."""

    done: int
    total: int


class Job:
    """What was made so far, how far the rest is, and who waits for it.

    One thread makes, and the readers take what is there: a slow reader holds up neither the maker nor another reader.

    Attributes:
        started: a thread works on it, or did.
        ended: nothing more comes.
        error: why it ended early.
        steps: those that the world told of.
    """

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.error: Exception | None = None
        self.steps: list[Step] = []
        self._spool = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        weakref.finalize(self, self._spool.close)
        self._ends = [0]
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._listeners: list[Listener] = []

    @property
    def made(self) -> int:
        """How many items there are."""
        return len(self._ends) - 1

    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Stop the work at its next step."""
        self._cancelled.set()

    def item(self, index: int) -> bytes:
        """One of those that were made."""
        with self._lock:
            start, end = self._ends[index : index + 2]
            self._spool.seek(start)
            return self._spool.read(end - start)

    def items(self) -> list[bytes]:
        """All that were made."""
        return [self.item(index) for index in range(self.made)]

    def add(self, item: bytes) -> None:
        """Make one more known."""
        with self._lock:
            self._spool.seek(self._ends[-1])
            self._spool.write(item)
            self._ends.append(self._ends[-1] + len(item))
        self._tell()

    def on_step(self, done: int, total: int) -> None:
        """Make known how far the work is."""
        self.steps.append(Step(done, total))
        self._tell()

    def end(self, error: Exception | None = None) -> None:
        """Make known that nothing more comes."""
        self.error, self.ended = error, True
        self._tell()

    def join(self, listener: Listener) -> None:
        """Have `listener` called, in the maker's thread, whenever there is something new."""
        self._listeners = [*self._listeners, listener]

    def leave(self, listener: Listener) -> bool:
        """Take a listener away; whether it was the last, which cancels the work."""
        self._listeners = [other for other in self._listeners if other is not listener]
        if self._listeners:
            return False
        self.cancel()
        return True

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


@dataclass(frozen=True)
class Batch:
    """How a trajectory is made at once with others.

    Attributes:
        key: digest of what they must have in common: the world, the photo and the like.
        most: how many at once.
        spec: what is to be made for a job; called in a thread.
        make: makes the items of several with one key, one iterator for each.
    """

    key: str
    most: int
    spec: Callable[[Job], ImagineSpec]
    make: Callable[[Sequence[ImagineSpec]], Sequence[Iterator[bytes]]]


@dataclass(frozen=True)
class Plan:
    """One trajectory to make.

    Attributes:
        key: digest of all that its items are a function of; requests with one key share the work.
        world: who makes it.
        lanes: how many of that world's are made at once; 0 = as many as there are threads for all such worlds.
        count: how many items it has.
        make: makes the items, one by one, in a thread; the job says whether anybody still waits, and hears of steps.
        batch: how it is made with others that wait at the same time; None = only alone.
    """

    key: str
    world: str
    lanes: int
    count: int
    make: Callable[[Job], Iterator[bytes]]
    batch: Batch | None = None
