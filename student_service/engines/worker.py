"""A process that holds one checkpoint and answers whatever its pool sends: an engine of its own, in one thread.

Nothing that happens beside an answer, neither loading another checkpoint nor the service's own work, then takes the
interpreter from it. Until the pool says that live queries come, the process gives way to all others.
"""

import gc
import logging
import os
import select
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from student_service.engines import messages
from student_service.engines.base import Engine, LookedUp, Update
from world2vlm import telemetry
from world2vlm.errors import PreconditionError, World2VLMError

_log = logging.getLogger(__name__)
_QUIET_NICENESS = 19
# What ends a connection, whatever the other side was doing.
GONE = (EOFError, OSError)


class LocalLoader(Protocol):
    """Loads a verified checkpoint folder into the calling process; travels to the process that calls it."""

    @property
    def threads(self) -> int:
        """Threads of one operation."""
        ...

    def __call__(self, folder: Path, looked_up: LookedUp) -> Engine:
        """See `student_service.engines.base.Loader`; lookups in the engine's caches are counted in `looked_up`."""
        ...

    def enter_thread(self) -> None:
        """Prepare another thread of the process for working with the engine."""
        ...


@dataclass(frozen=True)
class Assignment:
    """What a worker is for: the checkpoint, how it is loaded, and how the process logs."""

    folder: Path
    load: LocalLoader
    log_format: Any
    log_level: str


def work(connection: Connection, assignment: Assignment) -> None:
    """Load, say so, and answer until the pool hangs up; a process's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's: the service ends in its own time
    gc.freeze()  # what was imported stays for good, in memory that all workers share
    telemetry.configure_logging(assignment.log_format, assignment.log_level)
    worker = _Worker(connection, assignment)
    with suppress(*GONE):
        # A thread's priority can't be raised again: another thread goes on once live queries come.
        quiet = threading.Thread(target=worker.run_quietly, name="quiet")
        quiet.start()
        quiet.join()
        worker.run()


class _Worker:
    def __init__(self, connection: Connection, assignment: Assignment) -> None:
        self._connection = connection
        self._assignment = assignment
        self._news = select.poll()
        self._news.register(connection, select.POLLIN)
        self._looked_up: LookedUp = Counter()
        self._engine: Engine | None = None
        self._under_way: set[int] = set()
        self._serves = False

    def run_quietly(self) -> None:
        """Load at a low priority, and answer so until live queries come."""
        if self._assignment.load.threads == 1:  # threads that libraries start now would stay slow for ever
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _QUIET_NICENESS)
        try:
            engine = self._engine = self._load()
        except Exception as error:
            if not isinstance(error, World2VLMError):
                _log.exception("a checkpoint cannot be loaded")
                error = PreconditionError("the checkpoint is unfit: it cannot be loaded")
            with suppress(*GONE):
                self._send({"unfit": messages.write_error(error)})
            return
        with suppress(*GONE):
            self._send({"ready": engine.capacity})
            while not self._serves:
                self._turn(engine)

    def run(self) -> None:
        """Answer until the pool hangs up."""
        self._assignment.load.enter_thread()
        while self._engine is not None:
            self._turn(self._engine)

    def _load(self) -> Engine:
        engine = self._assignment.load(self._assignment.folder, self._looked_up)
        gc.collect()
        gc.freeze()
        return engine

    def _turn(self, engine: Engine) -> None:
        """Take in what came, waiting for it where there is nothing else to do, and take a step."""
        updates: list[Update] = []
        for head, blobs in self._received():
            if "asks" in head:
                updates += self._admit(engine, messages.read_asks(head, blobs))
            elif "drop" in head:
                self._under_way.discard(head["drop"])
                engine.drop(head["drop"])
            elif "serve" in head:
                self._serves = True
        if self._under_way:
            updates += self._step(engine)
        if updates:
            looked_up = [[*what, count] for what, count in self._looked_up.items()]
            self._looked_up.clear()
            self._send({"updates": [messages.write_update(each) for each in updates], "looked_up": looked_up})

    def _received(self) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
        while self._news.poll(0 if self._under_way else None):
            yield messages.unpack(self._connection.recv_bytes())
            if not self._news.poll(0):
                return

    def _admit(self, engine: Engine, asks: Sequence[messages.Ask]) -> list[Update]:
        failed = []
        for ask in asks:
            try:
                engine.admit(ask.number, ask.query, ask.max_new_tokens, ask.streams)
            except Exception as error:
                failed.append(self._failed(ask.number, error))
            else:
                self._under_way.add(ask.number)
        return failed

    def _step(self, engine: Engine) -> list[Update]:
        try:
            updates = engine.step()
        except Exception as error:
            lost, self._under_way = self._under_way, set()
            for number in lost:
                with suppress(Exception):
                    engine.drop(number)
            return [self._failed(number, error) for number in lost]
        self._under_way -= {each.key for each in updates if each.reply is not None or each.error is not None}
        return updates

    def _failed(self, number: int, error: Exception) -> Update:
        if not isinstance(error, World2VLMError):
            _log.error("a question failed", exc_info=error)
        return Update(number, error=error)

    def _send(self, head: dict[str, Any]) -> None:
        self._connection.send_bytes(messages.pack(head))
