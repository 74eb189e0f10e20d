"""Bounded concurrency: synchronous generators, advanced one step at a time on a few threads."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from world2vlm.errors import OverloadedError

T = TypeVar("T")


class Streams:
    """Runs generators for an event loop.

    A stream holds a thread only while it makes an item, so that a slow reader keeps nobody waiting; the number of
    open streams is bounded instead. A stream that nobody reads any more ends after the item it is making.

    Args:
        max_workers: items made at the same time.
        max_queue: open streams beyond that.
    """

    def __init__(self, max_workers: int, max_queue: int) -> None:
        self._limit = max_workers + max_queue
        self._open = 0
        self._pool = ThreadPoolExecutor(max_workers, thread_name_prefix="imagine")

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._open

    async def run(self, make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """Yield the items of the generator that `make` returns; `make` itself runs on the event loop.

        Raises:
            OverloadedError: too many streams are open.
        """
        if self._open >= self._limit:
            raise OverloadedError(f"{self._open} streams are open, which is the limit; try again later")
        self._open += 1
        try:
            loop, items = asyncio.get_running_loop(), make()
            while (item := await loop.run_in_executor(self._pool, next, items, None)) is not None:
                yield item
        finally:
            self._open -= 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the items being made, and stop the threads."""
        self._pool.shutdown(cancel_futures=True)
