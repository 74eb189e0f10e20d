"""How much memory processes take at most, children included."""

import threading
from collections.abc import Mapping

import psutil

_PERIOD_SECONDS = 1.0


class MemoryWatch:
    """Samples the memory of named processes, each with its children, from entering until leaving."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._peaks = dict.fromkeys((*pids, "all"), 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peaks_mb(self) -> dict[str, float]:
        """Largest sample by name, and `all`: the largest sum at one time; megabytes (10^6 bytes).

        Pages that several processes share count once: each has its part of them.
        """
        return {name: round(peak / 1e6, 1) for name, peak in self._peaks.items()}

    def _run(self) -> None:
        while True:
            sizes = {name: _used(process) for name, process in self._processes.items()}
            for name, size in {**sizes, "all": sum(sizes.values())}.items():
                self._peaks[name] = max(self._peaks[name], size)
            if self._ended.wait(_PERIOD_SECONDS):
                return


def _used(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += int(each.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    return total
