"""Whether a program under torchrun has ended gloo's threads before the interpreter shuts down."""

import atexit
import os
import sys
from pathlib import Path


def none_are_left_at_exit() -> None:
    """Let the program fail if one of them is left; to be called before it joins other processes."""
    atexit.register(_check)


def are_there() -> bool:
    """Whether one of them runs; never where the system has no `/proc`."""
    return any(task.read_text().strip() == "pt_gloo_runloop" for task in Path("/proc/self/task").glob("*/comm"))


def _check() -> None:
    # What is registered first is called last: behind it there is the end of the interpreter alone.
    if are_there():
        print("threads of gloo are left", file=sys.stderr, flush=True)
        os._exit(os.EX_SOFTWARE)
