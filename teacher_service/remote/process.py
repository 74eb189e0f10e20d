"""A world's own process, kept alive: started, watched, started again when it ends, and ended with the service."""

import atexit
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from teacher_service.remote.launch import Launch
from teacher_service.remote.output import Output
from teacher_service.workers import start
from world2vlm.errors import UnavailableError, World2VLMError
from world2vlm.health import is_serving
from world2vlm.worlds import WorldInfo

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_HEALTH_S = 2.0
_GRACE_S = 5.0
_LONGEST_FOLDER = 64
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


class WorkerProcess:
    """Supervises one worker from a thread of its own; that thread's end is the worker's end, too.

    Args:
        launch: the program.
        info: what the world says about itself.
    """

    def __init__(self, launch: Launch, info: WorldInfo) -> None:
        self.launch = launch
        self._info = info
        self._changed = threading.Condition()
        self._supervisor: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""
        self._failure: World2VLMError | None = None
        self._failures = 0
        self._closing = threading.Event()
        self._output: Output | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return self._process.pid if self._process else None

    @property
    def tail(self) -> str:
        """The last lines of what the process printed: for logs, never for replies."""
        return self._output.tail() if self._output else ""

    def start(self) -> None:
        """Start the process unless that was done; returns at once."""
        with self._changed:
            if self._supervisor is None and not self._closing.is_set():
                atexit.register(self.close)
                name = f"worker-{self.launch.world}"
                self._supervisor = threading.Thread(target=self._supervise, name=name, daemon=True)
                self._supervisor.start()

    def wait(self, is_cancelled: Callable[[], bool]) -> str:
        """Wait until the process serves, and return its address; empty where `is_cancelled` said so first.

        Raises:
            NotFoundError: its environment lacks something.
            UnavailableError: it keeps ending, is not ready in time, or was closed.
        """
        self.start()
        deadline = time.monotonic() + self.launch.options.start_seconds
        with self._changed:
            while not self._address:
                if self._failure is not None:
                    raise type(self._failure)(str(self._failure))
                if is_cancelled():
                    return ""
                if time.monotonic() > deadline:
                    raise UnavailableError(f"the world {self.launch.world!r} is still starting; try again later")
                self._changed.wait(_POLL_S)
            return self._address

    def answered(self) -> None:
        """Note that the process made a whole answer: what failed before does not count any more."""
        self._failures = 0

    def suspect(self, address: str) -> None:
        """Have the process at `address` replaced: it does not answer."""
        with self._changed:
            if self._address == address and self._process is not None:
                self._address = ""
                _kill(self._process)

    def close(self) -> None:
        """End the process and its supervision; nothing is started any more."""
        self._closing.set()
        with self._changed:
            self._failure = UnavailableError(f"the world {self.launch.world!r} was closed")
            self._address = ""
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            supervisor = self._supervisor
        if supervisor is not None:
            supervisor.join(_GRACE_S)
            if supervisor.is_alive() and self._process is not None:
                _kill(self._process)
                supervisor.join()
            atexit.unregister(self.close)

    def _supervise(self) -> None:
        # Readable by nobody else. A socket's path has at most 107 characters.
        within = tempfile.gettempdir() if len(tempfile.gettempdir()) < _LONGEST_FOLDER else "/tmp"
        folder = Path(tempfile.mkdtemp(prefix="w2v-", dir=within))
        try:
            pause = _FIRST_PAUSE_S
            while self._run_once(folder / f"{time.monotonic_ns()}.sock"):
                self._closing.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S) if self._failures > 1 else _FIRST_PAUSE_S
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_once(self, socket: Path) -> bool:
        """Run the process until it ends; whether to start another one."""
        with self._changed:
            if self._closing.is_set():
                return False
            try:
                process = self._process = self.launch.open(self._info, socket)
            except OSError as error:
                _log.error("%s: %s", self.launch.world, error)
                return self._give_up(UnavailableError(f"the world {self.launch.world!r} can't be started"))
        assert process.stdout is not None
        self._output = Output(process.stdout, partial(_log.debug, "%s: %s", self.launch.world))
        reader = threading.Thread(target=self._output.follow, name="worker-output", daemon=True)
        reader.start()
        self._await_ready(process, f"unix:{socket}")
        code = process.wait()
        _kill(process)
        reader.join(_GRACE_S)
        with self._changed:
            self._address = ""
        return not self._closing.is_set() and self._after(code)

    def _await_ready(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        deadline = time.monotonic() + self.launch.options.start_seconds
        while process.poll() is None:
            if is_serving(address, _HEALTH_S):
                with self._changed:
                    self._address = "" if self._closing.is_set() else address
                    self._changed.notify_all()
                return
            if time.monotonic() > deadline:
                _log.error("%s: not ready within %g s", self.launch.world, self.launch.options.start_seconds)
                _kill(process)
            time.sleep(_POLL_S)

    def _after(self, code: int) -> bool:
        """Decide what follows a process that ended by itself."""
        world = self.launch.world
        _log.error("%s: its process ended with exit code %d; its output ends with:\n%s", world, code, self.tail)
        if code == start.LACKING:
            return self._give_up(self.launch.lacking(self.tail))
        self._failures += 1
        if self._failures > self.launch.options.restarts:
            text = f"the world {world!r} ended {self._failures} times without an answer and is not started again"
            return self._give_up(UnavailableError(f"{text}; the teacher's log says why"))
        return True

    def _give_up(self, failure: World2VLMError) -> bool:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
        return False


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and whatever it left behind: its session is its process group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
