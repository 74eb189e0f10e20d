"""What a process uses: memory, threads, open files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_EVERY_S = 0.01


@dataclass(frozen=True)
class Usage:
    """What a process uses at one moment; `rss` in bytes, mapped files included: weights are read that way."""

    rss: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """What it uses now."""
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_threads(), process.num_fds())


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have taken so far."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


@dataclass
class Peak:
    """The most memory seen, in bytes."""

    rss: int = 0


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Watch a process's memory, a hundred times a second."""
    peak, ended, process = Peak(), threading.Event(), psutil.Process(pid)

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            peak.rss = max(peak.rss, process.memory_info().rss)

    thread = threading.Thread(target=watch, name="peak")
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
