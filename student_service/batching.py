"""Continuous batching: one worker thread lets the engines answer what waits, together where it can."""

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

from student_service import metrics
from student_service.engines.base import Query, Reply, Update
from student_service.slots import Slot

# A background query goes ahead of what waits after this long: under full load a swap must end, too.
_BACKGROUND_PATIENCE_S = 0.5
# And what has begun goes on at least this often.
_BACKGROUND_PAUSE_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """A reply, the version that gave it, and milliseconds: waiting, worked on, and till the first text of a stream."""

    reply: Reply
    version: int
    queue_ms: float
    generate_ms: float
    first_text_ms: float | None = None


class Answering(Future[Outcome]):
    """The future of one query. Cancelling it stops the work on it, at any time before its end."""

    def __init__(self) -> None:
        super().__init__()
        self.is_wanted = True

    def cancel(self) -> bool:
        """Stop the query; a future that has begun is cancelled all the same."""
        self.is_wanted = False
        return super().cancel()


Observer = Callable[[Slot, Query, int, Future[Outcome]], None]
"""Gets a live query's slot, the query, its token limit and its future, in the submitting thread; must be quick."""


@dataclass
class _Item:
    slot: Slot
    query: Query
    max_new_tokens: int
    on_text: Callable[[str], None] | None
    background: bool
    future: Answering = field(default_factory=Answering)
    queued_at: float = field(default_factory=time.perf_counter)
    started_at: float = 0.0
    first_text_at: float = 0.0

    def hear(self, update: Update) -> None:
        now = time.perf_counter()
        if update.text and self.on_text is not None:
            self.first_text_at = self.first_text_at or now
            self.on_text(update.text)
        if update.error is not None:
            self.future.set_exception(update.error)
        elif update.reply is not None:
            queued, generated = 1000 * (self.started_at - self.queued_at), 1000 * (now - self.started_at)
            first = 1000 * (self.first_text_at - self.queued_at) if self.first_text_at else None
            self.future.set_result(Outcome(update.reply, self.slot.version, queued, generated, first))


class Batcher:
    """Answers queries first come, first served, whether streamed or not: nothing is delayed to fill a batch.

    A query joins the answers under way at the next step, while its slot's engine has room and less than `max_batch`
    are under way, background ones not counted. Background queries start when nothing else waits or is under way, or
    after half a second; those that wait for one slot start together, those for different slots one slot at a time. The
    queue has no bound of its own: the callers bound what they submit.

    Attributes:
        observers: see every live query; background ones are not shown.
    """

    def __init__(self, max_batch: int) -> None:
        self.observers: list[Observer] = []
        self._max_batch = max_batch
        self._waiting: deque[_Item] = deque()
        self._background: deque[_Item] = deque()
        self._running: dict[int, _Item] = {}
        self._keys = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._background_stepped_at = 0.0
        self._worker = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._worker.start()

    @property
    def waiting(self) -> int:
        """Queries that wait, background ones not counted."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Queries that are being answered."""
        return len(self._running)

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

        Cancelling the future drops the query, whether it waits or is being answered. `on_text` gets each piece of the
        answer, in the worker's thread. The future raises what the engine raised.
        """
        item = _Item(slot, query, max_new_tokens, on_text, background)
        slot.hold()
        item.future.add_done_callback(lambda _: slot.release())
        with self._changed:
            if self._closed:
                item.future.cancel()
            else:
                (self._background if background else self._waiting).append(item)
                self._changed.notify()
                if self._running:
                    slot.engine.wake()
        if not background:
            for observe in self.observers:
                observe(slot, query, max_new_tokens, item.future)
        return item.future

    def close(self) -> None:
        """Cancel what waits, let what is being answered end, stop the worker."""
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
        while self._take_in():
            self._drop_unwanted()
            for slot, count in self._slots_to_step().items():
                self._step(slot, count)

    def _slots_to_step(self) -> Counter[Slot]:
        """Slots with queries under way; one with background queries alone stands still while others are answered."""
        counts = Counter(item.slot for item in self._running.values())
        live = {item.slot for item in self._running.values() if not item.background}
        now = time.perf_counter()
        if not live or now - self._background_stepped_at > _BACKGROUND_PAUSE_S:
            self._background_stepped_at = now
            return counts
        return Counter({slot: count for slot, count in counts.items() if slot in live})

    def _take_in(self) -> bool:
        """Start what may start; waits while there is nothing to do. False means that the batcher is closed."""
        with self._changed:
            if not self._running:
                self._changed.wait_for(lambda: self._waiting or self._background or self._closed)
            starting = self._next_items()
        for item in starting:
            self._start(item)
        return bool(self._running or starting) or not self._closed

    def _next_items(self) -> list[_Item]:
        items: list[_Item] = []
        if self._background and self._background_may_start():
            slot = self._background[0].slot
            while self._background and self._background[0].slot is slot and self._has_room(slot, items):
                items.append(self._background.popleft())
        # Background queries take up no room: nobody waits for them, and they may be slow.
        room = self._max_batch - sum(not item.background for item in self._running.values())
        while self._waiting and room > 0 and self._has_room(self._waiting[0].slot, items):
            items.append(self._waiting.popleft())
            room -= 1
        return items

    def _has_room(self, slot: Slot, starting: list[_Item]) -> bool:
        busy = sum(item.slot is slot for item in (*self._running.values(), *starting))
        return busy < slot.engine.capacity

    def _background_may_start(self) -> bool:
        if any(item.background for item in self._running.values()):
            return False
        is_patient = time.perf_counter() - self._background[0].queued_at < _BACKGROUND_PATIENCE_S
        return not (is_patient and (self._waiting or self._running))

    def _start(self, item: _Item) -> None:
        if not item.future.set_running_or_notify_cancel():
            return
        item.started_at = time.perf_counter()
        key = next(self._keys)
        try:
            item.slot.engine.admit(key, item.query, item.max_new_tokens, item.on_text is not None)
        except Exception as error:
            item.future.set_exception(error)
        else:
            self._running[key] = item

    def _drop_unwanted(self) -> None:
        for key, item in list(self._running.items()):
            if not item.future.is_wanted:
                with suppress(Exception):
                    item.slot.engine.drop(key)
                self._end(key, Update(key, error=CancelledQueryError()))

    def _step(self, slot: Slot, count: int) -> None:
        try:
            updates: Sequence[Update] = slot.engine.step()
        except Exception as error:
            lost = [key for key, item in self._running.items() if item.slot is slot]
            for key in lost:
                # The engine may know them still, and would bring news of them that nobody waits for.
                with suppress(Exception):
                    slot.engine.drop(key)
            updates = [Update(key, error=error) for key in lost]
        if updates:  # a remote engine may have had no news
            metrics.stepped(count)
        for update in updates:
            if update.reply is None and update.error is None:
                self._running[update.key].hear(update)
            else:
                self._end(update.key, update)

    def _end(self, key: int, update: Update) -> None:
        self._running.pop(key).hear(update)


class CancelledQueryError(Exception):
    """Whoever asked does not want the answer any more."""
