"""How long each phase of a swap takes."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


class Phases:
    """Times the phases of one swap and says in the log when each begins.

    Attributes:
        milliseconds: by phase, of those that ended.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Time the block."""
        _log.info("version %d: %s", self._version, phase)
        started = time.perf_counter()
        yield
        self.milliseconds[phase] = 1000 * (time.perf_counter() - started)
