import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from teacher_service.streams import Streams
from world2vlm.errors import OverloadedError


async def test_items_come_in_order_and_off_the_event_loop() -> None:
    def make() -> Iterator[tuple[int, str]]:
        for index in range(5):
            yield index, threading.current_thread().name

    with Streams(2, 0) as streams:
        items = [item async for item in streams.run(make)]
    assert [index for index, _ in items] == list(range(5))
    assert all(name.startswith("imagine") for _, name in items)


async def test_an_error_ends_the_stream_and_frees_its_place() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Streams(1, 0) as streams:
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                [item async for item in streams.run(make)]
        assert streams.open == 0


async def test_one_stream_too_many_is_refused_until_another_ends() -> None:
    with Streams(1, 1) as streams:
        async with (
            aclosing(streams.run(lambda: iter([1, 2]))) as first,
            aclosing(streams.run(lambda: iter([3, 4]))) as second,
        ):
            # Both are open though there is one thread: none waits for the other's reader.
            assert (await anext(first), await anext(second)) == (1, 3)
            with pytest.raises(OverloadedError, match="2 streams"):
                await anext(streams.run(lambda: iter([5])))
        assert [item async for item in streams.run(lambda: iter([5]))] == [5]


async def test_at_most_max_workers_items_are_made_at_once() -> None:
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=10)

    def make() -> Iterator[int]:
        nonlocal running, most
        for index in range(3):
            with lock:
                running += 1
                most = max(most, running)
            both.wait()
            with lock:
                running -= 1
            yield index

    async def drain(streams: Streams) -> list[int]:
        return [item async for item in streams.run(make)]

    with Streams(2, 8) as streams:
        assert await asyncio.gather(*(drain(streams) for _ in range(4))) == [[0, 1, 2]] * 4
    assert most == 2


async def test_a_cancelled_stream_stops_after_the_item_being_made() -> None:
    started, go, closed = threading.Event(), threading.Event(), threading.Event()
    made = []

    def make() -> Iterator[int]:
        try:
            for index in range(100):
                started.set()
                go.wait(10)
                made.append(index)
                yield index
        finally:
            closed.set()

    async def drain(streams: Streams) -> None:
        async for _ in streams.run(make):
            pass

    with Streams(1, 0) as streams:
        task = asyncio.create_task(drain(streams))
        await asyncio.to_thread(started.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert streams.open == 0
        go.set()
        assert await asyncio.to_thread(closed.wait, 10)
    assert made == [0]
