"""What a process and its children use: memory, threads, open files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

_EVERY_S = 0.05


@dataclass(frozen=True)
class Usage:
    """What a process and its children use at one moment.

    `memory` in bytes, mapped files included, since weights are read that way; what processes share counts once.
    """

    memory: int
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """What they use now."""
        memory = threads = files = 0
        for each in _tree(pid):
            with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                own = _memory(each), each.num_threads(), each.num_fds()
                memory, threads, files = memory + own[0], threads + own[1], files + own[2]
        return cls(memory, threads, files)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its children have taken so far."""
    times = [each.cpu_times() for each in _tree(pid)]
    return float(sum(each.user + each.system for each in times))


@dataclass
class Peak:
    """The most memory seen, in bytes."""

    memory: int = 0


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Watch the memory of a process and its children, twenty times a second: each look stops a heavy one a while."""
    peak, ended = Peak(), threading.Event()

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            # One that ends meanwhile has no memory any more.
            with suppress(psutil.NoSuchProcess):
                peak.memory = max(peak.memory, sum(map(_memory, _tree(pid))))

    thread = threading.Thread(target=watch, name="peak")
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _memory(process: psutil.Process) -> int:
    return int(process.memory_full_info().pss)
