"""The engine in processes of its own, each with the checkpoint.

Who is asked about pictures again goes to a worker that has seen them, and so knows them; a worker that has much more to
do than another gets nothing new. What is asked at the same time is sent at the same time.
"""

import itertools
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from cachetools import LRUCache

from student_service import metrics
from student_service.engines import messages
from student_service.engines.base import EngineLostError, Query, Update
from student_service.engines.worker import GONE, Assignment, work
from world2vlm.errors import PreconditionError, UnavailableError

_log = logging.getLogger(__name__)
# How long `step` waits for news: who steps may have other engines, too.
_NEWS_S = 0.002
_END_S = 10.0
# Calls of `wake` that are heard at once.
_RINGS = 4096
# Pictures of which it is known who saw them; more than a worker remembers.
_HOMES = 4096
# How many more queries than another the worker may have that has seen a query's pictures.
_SLACK = 2
# A worker that dies again and again before it has answered anything is not started any more.
_MOST_RESTARTS = 3
_PRELOADED = [f"student_service.engines.{name}" for name in ("ancestor", "loading", "local", "onnx", "worker")]


@cache
def _processes() -> ForkServerContext:
    """Processes come from one that has imported the libraries, and nothing else: they start at once, and share them."""
    context = get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    rows: int = 0  # queries at once; none before it is ready
    restarts: int = 0
    asked: dict[int, int] = field(default_factory=dict)  # the callers' keys, by number
    unsent: list[messages.Ask] = field(default_factory=list)  # of those asked

    @property
    def has_room(self) -> bool:
        return len(self.asked) < self.rows


class PoolEngine:
    """Several processes with one checkpoint, behind the engine port (`student_service.engines.base.Engine`).

    A process that dies takes its queries with it and is replaced.

    Args:
        assignment: what each process is for.
        workers: how many processes.
        capacity: queries at once, in all of them together.

    Raises:
        PreconditionError: the checkpoint is unfit.
    """

    def __init__(self, assignment: Assignment, workers: int, capacity: int) -> None:
        self.capacity = capacity
        self._assignment = assignment
        self._serves = self._closed = False
        self._numbers = itertools.count()
        self._news: deque[Update] = deque()
        self._homes: LRUCache[int, frozenset[_Worker]] = LRUCache(_HOMES)  # by the pictures' hash
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()
        for end in (self._alarm, self._bell):
            end.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ)
        self._workers = [self._start() for _ in range(workers)]
        try:
            for worker in self._workers:
                self._await_ready(worker)
        except BaseException:
            self.close()
            raise

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        """See `Engine.admit`."""
        self._check_open()
        if not any(worker.has_room for worker in self._workers):
            self._listen(0)
        ready = [worker for worker in self._workers if worker.has_room]
        if not ready:
            raise UnavailableError("the student's process is being started again; try again later")
        worker = self._pick(ready, query)
        ask = messages.Ask(next(self._numbers), query, max_new_tokens, streams)
        worker.asked[ask.number] = key
        worker.unsent.append(ask)

    def drop(self, key: int) -> None:
        """See `Engine.drop`."""
        for worker in self._workers:
            for number in [number for number, known in worker.asked.items() if known == key]:
                del worker.asked[number]
                kept = [ask for ask in worker.unsent if ask.number != number]
                if kept == worker.unsent:
                    with suppress(*GONE):
                        worker.connection.send_bytes(messages.pack({"drop": number}))
                worker.unsent = kept
        self._news = deque(update for update in self._news if update.key != key)

    def step(self) -> list[Update]:
        """See `Engine.step`."""
        self._check_open()
        self._send_asks()
        if not self._news and any(worker.asked for worker in self._workers):
            self._listen(_NEWS_S)
        updates = list(self._news)
        self._news.clear()
        return updates

    def wake(self) -> None:
        """See `Engine.wake`."""
        with suppress(OSError):  # it rings already, or the engine is closed
            self._bell.send(b"!")

    def serve(self) -> None:
        """See `Engine.serve`."""
        self._serves = True
        for worker in self._workers:
            with suppress(*GONE):
                worker.connection.send_bytes(messages.pack({"serve": True}))

    def close(self) -> None:
        """See `Engine.close`."""
        if self._closed:
            return
        self._closed = True
        for worker in self._workers:
            worker.connection.close()
            threading.Thread(target=_reap, args=(worker.process,), name="reap", daemon=True).start()
        self._selector.close()
        self._alarm.close()
        self._bell.close()

    def _send_asks(self) -> None:
        """Send what was admitted, to each worker in one message."""
        while waiting := [worker for worker in self._workers if worker.unsent]:
            for worker in waiting:
                try:
                    worker.connection.send_bytes(messages.write_asks(worker.unsent))
                except GONE:
                    self._replace(worker)
                else:
                    worker.unsent = []

    def _admit_again(self, key: int, ask: messages.Ask) -> None:
        try:
            self.admit(key, ask.query, ask.max_new_tokens, ask.streams)
        except UnavailableError as error:
            self._news.append(Update(key, error=error))

    def _pick(self, ready: Sequence[_Worker], query: Query) -> _Worker:
        """Of the workers that have seen the query's pictures, or else of all, the one with the least to do.

        Where several have nothing to do it is the first: who is asked time and again has its code and weights in the
        processor's caches.
        """
        least = min(ready, key=lambda worker: len(worker.asked))
        pictures = hash(query.images)
        homes = self._homes.get(pictures, frozenset())
        home = min(homes.intersection(ready), key=lambda worker: len(worker.asked), default=least)
        if len(home.asked) > len(least.asked) + _SLACK:
            home = least
        self._homes[pictures] = homes | {home}
        return home

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    def _start(self, restarts: int = 0) -> _Worker:
        ours, theirs = _processes().Pipe()
        process = _processes().Process(target=work, args=(theirs, self._assignment), name="student", daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours, restarts=restarts)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _await_ready(self, worker: _Worker) -> None:
        try:
            head, _ = messages.unpack(worker.connection.recv_bytes())
        except GONE as error:
            raise PreconditionError("the checkpoint is unfit: the process that loads it dies") from error
        if "unfit" in head:
            raise messages.read_error(head["unfit"])
        worker.rows = head["ready"]

    def _listen(self, timeout_s: float) -> None:
        for found, _ in self._selector.select(timeout_s):
            worker: _Worker | None = found.data
            if worker is None:
                self._alarm.recv(_RINGS)
                continue
            try:
                head, _ = messages.unpack(worker.connection.recv_bytes())
            except GONE:
                self._replace(worker)
            else:
                self._hear(worker, head)

    def _hear(self, worker: _Worker, head: dict[str, Any]) -> None:
        if "ready" in head:
            worker.rows = head["ready"]
            if self._serves:
                self.serve()
        for fields in head.get("updates", ()):
            # What was dropped may have left news behind.
            if (key := worker.asked.get(fields[0])) is not None:
                update = messages.read_update(fields, key)
                if update.reply is not None or update.error is not None:
                    del worker.asked[fields[0]]
                    worker.restarts = 0
                self._news.append(update)
        for what, found, count in head.get("looked_up", ()):
            metrics.looked_up(what, found, count)

    def _replace(self, worker: _Worker) -> None:
        """Start another process in the place of one that is gone; its queries fail, but for those not sent yet."""
        self._selector.unregister(worker.connection)
        worker.connection.close()
        again = [(worker.asked.pop(ask.number), ask) for ask in worker.unsent]
        self._news += [
            Update(key, error=EngineLostError("the student's process died")) for key in worker.asked.values()
        ]
        self._restart(worker)
        for key, ask in again:
            self._admit_again(key, ask)

    def _restart(self, worker: _Worker) -> None:
        place = self._workers.index(worker)
        if worker.restarts >= _MOST_RESTARTS:
            _log.error(
                "a student's process died %d times before it answered anything, and is not started again",
                worker.restarts + 1,
            )
            del self._workers[place]
            return
        _log.error("a student's process died; another one is started")
        self._workers[place] = self._start(worker.restarts + 1)


def _reap(process: BaseProcess) -> None:
    process.join(_END_S)
    if process.is_alive():
        process.kill()
        process.join()
