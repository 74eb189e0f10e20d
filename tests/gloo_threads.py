"""Whether a program under torchrun has ended gloo's threads before the interpreter shuts down."""

import atexit
import os
import sys
import time
from pathlib import Path


def none_are_left_at_exit() -> None:
    """Let the program fail if one of them is left; to be called before it joins other processes."""
    atexit.register(_check)


def are_there() -> bool:
    """Whether one of them runs and has its name, as after a first collective; never where the system has no `/proc`."""
    return any(_name(task) == "pt_gloo_runloop" for task in Path("/proc/self/task").glob("*"))


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text().strip()
    except OSError:  # it has ended meanwhile
        return ""


def _check() -> None:
    # What is registered first is called last: behind it there is the end of the interpreter alone.
    # The system lists a thread for a moment after it was joined; one that is left stays.
    deadline = time.monotonic() + 2
    while are_there():
        if time.monotonic() > deadline:
            print("threads of gloo are left", file=sys.stderr, flush=True)
            os._exit(os.EX_SOFTWARE)
        time.sleep(0.01)
