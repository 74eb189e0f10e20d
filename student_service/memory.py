"""Giving memory back: what a retired checkpoint held goes to the operating system, not into the allocator's drawer."""

import ctypes
import gc


def settle() -> None:
    """Take all that lives now out of the garbage collector's sight; call it once, before anything is answered.

    The libraries' hundreds of thousands of objects stay for good. Looking through them takes a third of a second, in
    which nobody is answered, and Python does it by itself every now and then.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect what only cycles keep alive, and return free memory to the system where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
