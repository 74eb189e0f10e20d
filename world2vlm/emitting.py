"""Turning work that emits as it goes into a stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

Item = TypeVar("Item")


async def emitted(work: Callable[[Callable[[Item], None]], Awaitable[None]]) -> AsyncGenerator[Item, None]:
    """Yield what `work` emits, as it emits it; then raise what it raised. Leaving early cancels it.

    Args:
        work: called once, with the function to emit with; that may be called in the event loop's thread only.
    """
    queue: asyncio.Queue[Item | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (item := await queue.get()) is not None:
            yield item
        await task
    finally:
        task.cancel()
