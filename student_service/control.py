"""What the calls that change what serves share, whichever protocol they come by: a token and threads of their own."""

import asyncio
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from world2vlm.errors import UnauthenticatedError

_THREADS = 4

Result = TypeVar("Result")


class Control:
    """Checks who may control the service, and runs what blocks."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()
        # Threads of its own: a swap that waits must not hold up whoever answers, nor whoever lists checkpoints.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="control")

    def authorise(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Do nothing for a caller who has the token.

        Raises:
            UnauthenticatedError: anybody else.
        """
        given = str(dict(context.invocation_metadata() or ()).get("authorization", "")).encode()
        if not hmac.compare_digest(given, self._expected):
            raise UnauthenticatedError("this call needs the control token: `authorization: Bearer TOKEN`")

    async def run(self, function: Callable[[], Result]) -> Result:
        """Call a function that blocks. Once begun it runs to its end, though its caller leaves."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def close(self) -> None:
        """Stop the threads; what has begun runs to its end."""
        self._threads.shutdown(wait=False)
