"""What a process prints: read as it comes, so that the process never waits for it; the last lines are kept."""

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

_LINES = 40
_LINE_LENGTH = 500
_CHUNK = 1 << 16


class Output:
    """The output of one process, through a pipe.

    Args:
        file: the pipe's reading end, held open as long as anything may read it: a child may outlive the process.
        on_line: hears of each line.
    """

    def __init__(self, file: IO[bytes], on_line: Callable[[str], None]) -> None:
        self._file = file
        self._on_line = on_line
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._rest = b""
        self._ended = False

    def follow(self) -> None:
        """Read until the process and its children have closed their ends."""
        while not self._ended:
            select.select([self._file], [], [])
            with self._lock:
                self._read_what_is_there()

    def tail(self) -> str:
        """The last lines; all that the process has printed up to now counts, read or not."""
        with self._lock:
            self._read_what_is_there()
            return "\n".join(self._lines)

    def _read_what_is_there(self) -> None:
        while not self._ended and select.select([self._file], [], [], 0)[0]:
            chunk = os.read(self._file.fileno(), _CHUNK)
            self._ended = not chunk
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if self._rest and (self._ended or len(self._rest) > _LINE_LENGTH):
                lines, self._rest = [*lines, self._rest], b""
            for line in lines:
                text = line[:_LINE_LENGTH].decode(errors="replace").rstrip()
                self._lines.append(text)
                self._on_line(text)
