"""Which engine answers: one reference to a slot, and slots that know how many requests still need them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from student_service.engines.base import Engine
from world2vlm.errors import UnavailableError


class Slot:
    """A loaded checkpoint version. It closes its engine when it is retired and nobody holds it any more."""

    def __init__(self, version: int, engine: Engine, on_close: Callable[[], None] = lambda: None) -> None:
        """Take over an engine; `on_close` is called after its end."""
        self.version = version
        self.engine = engine
        self._on_close = on_close
        self._lock = threading.Lock()
        self._holders = 0
        self._retired = False
        self._drained = threading.Event()

    @property
    def holders(self) -> int:
        """How many requests need this slot now."""
        return self._holders

    def hold(self) -> None:
        """Keep the engine alive until `release`. Only for callers who know that the slot is not drained."""
        with self._lock:
            if self._retired and self._holders == 0:
                raise RuntimeError(f"the slot of version {self.version} is closed")
            self._holders += 1

    def release(self) -> None:
        """Give back one `hold`."""
        with self._lock:
            self._holders -= 1
            last = self._retired and self._holders == 0
        if last:
            self._close()

    def retire(self) -> None:
        """Close the engine once the last holder is gone, at once if there is none."""
        with self._lock:
            self._retired = True
            last = self._holders == 0
        if last:
            self._close()

    def wait_drained(self, timeout_s: float) -> bool:
        """Wait until the engine is closed; False when that took longer than `timeout_s` seconds."""
        return self._drained.wait(timeout_s)

    def _close(self) -> None:
        self.engine.close()
        self._on_close()
        self._drained.set()


class Serving:
    """The one reference to the slot that answers new requests. Empty until the first flip."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slot: Slot | None = None

    @property
    def version(self) -> int | None:
        """The version that answers new requests, None when there is none yet."""
        slot = self._slot
        return slot.version if slot else None

    @contextmanager
    def lease(self) -> Iterator[Slot]:
        """Hold the slot that answers now; it stays usable inside the block whatever is flipped meanwhile.

        Raises:
            UnavailableError: no checkpoint serves yet.
        """
        with self._lock:
            slot = self._slot
            if slot is None:
                raise UnavailableError("no checkpoint serves yet")
            slot.hold()
        try:
            yield slot
        finally:
            slot.release()

    def flip(self, slot: Slot) -> Slot | None:
        """Let `slot` answer from now on, retire the one before and return it."""
        slot.engine.serve()
        with self._lock:
            before, self._slot = self._slot, slot
        if before is not None:
            before.retire()
        return before

    def close(self) -> None:
        """Let nothing answer any more; the engine ends with its last holder."""
        with self._lock:
            before, self._slot = self._slot, None
        if before is not None:
            before.retire()
