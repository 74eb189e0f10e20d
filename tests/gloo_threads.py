"""Whether a program under torchrun has ended gloo's threads before the interpreter shuts down."""

import atexit
import os
import sys
from pathlib import Path


def none_are_left_at_exit() -> None:
    """Let the program fail if one of them is left; to be called before it joins other processes."""
    atexit.register(_check)


def _check() -> None:
    # What is registered first is called last: behind it there is the end of the interpreter alone.
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    if "pt_gloo_runloop" in names:
        print(f"threads of gloo are left: {names}", file=sys.stderr, flush=True)
        os._exit(os.EX_SOFTWARE)
