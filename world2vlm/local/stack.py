"""The local stack: Valkey, teacher, student, worker and (if wanted) beat, supervised as child processes."""

import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from world2vlm.broker import open_broker
from world2vlm.health import is_serving
from world2vlm.local.process import ManagedProcess
from world2vlm.tls import ClientTls

if TYPE_CHECKING:
    from celery import Celery

_START_SECONDS = 120.0
_GRACE_SECONDS = 20.0
_HEALTH_SECONDS = 1.0


@dataclass(frozen=True)
class StackConfig:
    """What to run.

    Attributes:
        store: the store's URL or folder.
        logs: folder for one log file a process.
        teacher_port: 0 = any free one.
        student_port: 0 = any free one.
        redis_url: a broker that runs already; None = an embedded one.
        beat: also run the scheduler.
        environment: more variables for all processes.
        worker_environment: more variables for the worker alone.
        control_token: for swaps and roll-backs; random by default.
        tls: how to connect to the services; None = they serve without TLS.
    """

    store: str
    logs: Path
    teacher_port: int = 0
    student_port: int = 0
    redis_url: str | None = None
    beat: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    worker_environment: Mapping[str, str] = field(default_factory=dict)
    control_token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    tls: ClientTls | None = None


class Stack:
    """Start everything on entering, stop it in order on leaving: whoever asks goes before whoever answers."""

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.processes: list[ManagedProcess] = []
        self.redis_url = ""
        self.teacher_url = f"127.0.0.1:{config.teacher_port or _free_port()}"
        self.student_url = f"127.0.0.1:{config.student_port or _free_port()}"
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        """Start the processes and wait until each is ready.

        Raises:
            UnavailableError: one ended or was not ready in time; the text has the last lines of its log.
        """
        with self._exits:
            self.redis_url = self._exits.enter_context(open_broker(self.config.redis_url, self.config.store))
            teacher = self._start("teacher", ["teacher_service"], _port(self.teacher_url))
            student = self._start("student", ["student_service"], _port(self.student_url))
            worker = self._start("worker", ["trainer", "worker"], extra=self.config.worker_environment)
            if self.config.beat:
                self._start("beat", ["trainer", "beat"])
            teacher.wait_ready(lambda: self._serves(self.teacher_url), _START_SECONDS)
            student.wait_ready(lambda: self._serves(self.student_url), _START_SECONDS)
            worker.wait_ready(self._worker_answers, _START_SECONDS)
            self._exits = self._exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {process.name: process.pid for process in self.processes if process.pid is not None}

    def check(self) -> None:
        """Do nothing while all processes run.

        Raises:
            UnavailableError: one ended; the text has the last lines of its log.
        """
        for process in self.processes:
            process.check()

    def watch(self, seconds: float) -> None:
        """Check the processes for some time.

        Raises:
            UnavailableError: one ended.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            time.sleep(min(0.5, seconds))

    def advance(self, round_id: str) -> None:
        """Tell the workers that a round has work for them."""
        with self._celery() as celery:
            celery.send_task("trainer.tasks.advance", args=[round_id], queue="light")

    def _start(
        self, name: str, arguments: list[str], port: str | None = None, extra: Mapping[str, str] | None = None
    ) -> ManagedProcess:
        environment = {**self._environment(), **(extra or {})}
        if port is not None:
            environment["WORLD2VLM_PORT"] = port
        process = ManagedProcess(name, arguments, environment, self.config.logs)
        self.processes.append(process)
        self._exits.callback(process.stop, _GRACE_SECONDS)
        process.start()
        return process

    def _environment(self) -> dict[str, str]:
        return {
            **self.config.environment,
            "WORLD2VLM_STORE": self.config.store,
            "WORLD2VLM_REDIS_URL": self.redis_url,
            "WORLD2VLM_TEACHER_URL": self.teacher_url,
            "WORLD2VLM_STUDENT_URL": self.student_url,
            "WORLD2VLM_CONTROL_TOKEN": self.config.control_token,
        }

    def _serves(self, url: str) -> bool:
        return is_serving(url, _HEALTH_SECONDS, tls=self.config.tls)

    def _worker_answers(self) -> bool:
        with self._celery() as celery:
            return bool(celery.control.ping(timeout=_HEALTH_SECONDS))

    def _celery(self) -> "Celery":
        from celery import Celery

        return Celery(broker=self.redis_url, set_as_current=False)


def _port(url: str) -> str:
    return url.rpartition(":")[2]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
