"""Trying a call again, inside one deadline."""

import random
import time
from typing import Any

import grpc

from world2vlm.rpc.statuses import raise_domain_error, retry_after

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class Attempts:
    """The attempts at one call: how long the next may take, and how long to wait before it.

    Args:
        timeout: seconds that all of them may take together.
        retry: whether there may be more than one.
    """

    def __init__(self, timeout: float, retry: bool) -> None:
        self._ends = time.monotonic() + timeout
        self._retry = retry
        self._pause = _FIRST_PAUSE_S

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self._ends - time.monotonic())

    def pause_after(self, error: grpc.RpcError, *, may_repeat: bool = True) -> float:
        """Seconds to wait before the next attempt: twice as many each time, and as many as the server asks for.

        Raises:
            World2VLMError: what the failed call carries, where another attempt can't help or there is no time for it.
        """
        call: Any = error
        hint = retry_after(error)
        is_full = call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and hint is not None
        is_away = call.code() is grpc.StatusCode.UNAVAILABLE
        # Scattered, so that clients that failed together do not come back together.
        pause = random.uniform(1.0, 1.5) * max(self._pause, hint or 0.0)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        if not (self._retry and may_repeat and (is_full or is_away)) or pause >= self.left:
            raise_domain_error(error)
        return pause
