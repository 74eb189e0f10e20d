"""One supervised child process with its log file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from world2vlm.errors import UnavailableError

_TAIL_LINES = 15
_POLL_SECONDS = 0.1


class ManagedProcess:
    """A Python module as a child process: `python -m <module> <arguments>`.

    It gets a session of its own, so that Ctrl-C reaches the supervisor only, and SIGTERM when the thread that started
    it dies: start it from a thread that lives as long as it should (the main one).

    Args:
        name: for messages and the log file's name.
        arguments: the module and its arguments.
        environment: variables on top of this process's own.
        logs: the folder for `<name>.log`.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self._command = [sys.executable, "-m", *arguments]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None before `start`."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; its output is appended to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-m", "world2vlm.local.guard", str(os.getpid())]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Do nothing while the process runs.

        Raises:
            UnavailableError: it ended; the text has the last lines of its log.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            raise UnavailableError(f"{self.name} ended with exit code {code}; {self.log} ends with:\n{self.tail()}")

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready` says so.

        Raises:
            UnavailableError: the process ended, or it was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{self.name} was not ready within {timeout_s:.0f} s; {self.log} ends with:\n{self.tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def stop(self, grace_s: float) -> None:
        """End the process: SIGTERM, then after `grace_s` seconds SIGKILL to it and to what it left behind."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        # Its session is its process group: children that outlived it go too.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of the log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
