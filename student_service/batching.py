"""Batching: one worker thread answers what waits, together where it can."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from student_service.engines.base import Query, Reply
from student_service.slots import Slot

# A background query goes ahead of what waits after this long: under full load a swap must end, too.
_BACKGROUND_PATIENCE_S = 0.5


@dataclass(frozen=True)
class Outcome:
    """A reply with the version that gave it, the milliseconds it waited, and those its batch took."""

    reply: Reply
    version: int
    queue_ms: float
    generate_ms: float


@dataclass
class _Item:
    slot: Slot
    query: Query
    max_new_tokens: int
    on_text: Callable[[str], None] | None
    future: Future[Outcome] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)
    told_text: bool = False

    def tell(self, text: str) -> None:
        if self.on_text is not None:
            self.told_text = True
            self.on_text(text)

    def fits_with(self, other: "_Item") -> bool:
        return self.slot is other.slot and self.max_new_tokens == other.max_new_tokens


class Batcher:
    """Answers queries first come, first served. A batch is whatever waits when the worker is free: nothing is delayed.

    A batch never mixes slots or token limits. Background queries are answered when nothing else waits, or after half a
    second. The queue has no bound of its own: the callers bound what they submit.

    Attributes:
        idle: set while no batch is being answered.
    """

    def __init__(self, max_batch: int) -> None:
        self.idle = threading.Event()
        self.idle.set()
        self._max_batch = max_batch
        self._waiting: deque[_Item] = deque()
        self._background: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._worker.start()

    def submit(
        self,
        slot: Slot,
        query: Query,
        max_new_tokens: int,
        on_text: Callable[[str], None] | None = None,
        *,
        background: bool = False,
    ) -> Future[Outcome]:
        """Queue one query for `slot`, which the caller holds now; the batcher holds it until the query has ended.

        Cancelling the future drops the query while it still waits. `on_text` gets each piece of the answer, in the
        worker's thread. The future raises what the engine raised.
        """
        item = _Item(slot, query, max_new_tokens, on_text)
        slot.hold()
        item.future.add_done_callback(lambda _: slot.release())
        with self._changed:
            if self._closed:
                item.future.cancel()
            else:
                (self._background if background else self._waiting).append(item)
                self._changed.notify()
        return item.future

    def close(self) -> None:
        """Cancel what waits, let the running batch end, stop the worker."""
        with self._changed:
            self._closed = True
            dropped = [*self._waiting, *self._background]
            self._waiting.clear()
            self._background.clear()
            self._changed.notify()
        for item in dropped:
            item.future.cancel()
        self._worker.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            # From here on a future can't be cancelled any more: its slot stays held until the engine is done.
            running = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if running:
                self.idle.clear()
                self._answer(running)
                self.idle.set()

    def _next_batch(self) -> list[_Item]:
        """Wait for work; an empty list means that the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._background or self._closed)
            queue = self._next_queue()
            batch: list[_Item] = []
            while queue and len(batch) < self._max_batch and all(queue[0].fits_with(item) for item in batch):
                batch.append(queue.popleft())
            return batch

    def _next_queue(self) -> deque[_Item]:
        if not self._background:
            return self._waiting
        patient = time.perf_counter() - self._background[0].queued_at < _BACKGROUND_PATIENCE_S
        return self._waiting if self._waiting and patient else self._background

    def _answer(self, batch: list[_Item]) -> None:
        started = time.perf_counter()
        first = batch[0]
        streams = any(item.on_text is not None for item in batch)
        on_text = (lambda index, text: batch[index].tell(text)) if streams else None
        try:
            replies = first.slot.engine.answer([item.query for item in batch], first.max_new_tokens, on_text)
        except Exception as error:
            self._fail(batch, error)
            return
        ended = time.perf_counter()
        for item, reply in zip(batch, replies, strict=True):
            item.future.set_result(
                Outcome(reply, item.slot.version, 1000 * (started - item.queued_at), 1000 * (ended - started))
            )

    def _fail(self, batch: list[_Item], error: Exception) -> None:
        """One bad query must not fail its neighbours: each is tried again alone, unless its text has begun to flow."""
        for item in batch:
            if len(batch) == 1 or item.told_text:
                item.future.set_exception(error)
            else:
                self._answer([item])
