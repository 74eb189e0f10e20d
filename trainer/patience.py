"""Waiting for a service that is away or busy: steps wait in place, so that a blip costs seconds and no redelivery."""

import time
from collections.abc import Callable
from typing import TypeVar

from world2vlm.errors import OverloadedError, UnavailableError

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 10.0

T = TypeVar("T")


def patiently(call: Callable[[], T], patience_s: float) -> T:
    """Return what `call` returns, called again with growing pauses while the service is away or busy.

    Raises:
        UnavailableError, OverloadedError: it still is after `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return call()
        except (UnavailableError, OverloadedError):
            if time.monotonic() + wait > deadline:
                raise
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
