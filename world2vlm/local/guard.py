"""`python -m world2vlm.local.guard PARENT COMMAND...`: become COMMAND, and be told to end when PARENT dies.

Linux only. A program of its own, because code between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGTERM at the parent's death, then replace this process with the command."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the line above.
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
