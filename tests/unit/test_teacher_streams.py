"""Trajectories are made once, on a few threads, for as long as anybody waits, and never twice."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from teacher_service.cache import FrameCache
from teacher_service.jobs import Job, Plan, Step
from teacher_service.streams import Streams
from world2vlm.errors import GateRejectedError, InvalidInputError, OverloadedError, World2VLMError

DEADLINE_S = 20
Making = Callable[[Job], Iterator[bytes]]


class Kitchen:
    """Plans whose makings are counted."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def plan(self, key: str, make: Making | None = None, count: int = 3, world: str = "w", lanes: int = 0) -> Plan:
        def counted(job: Job) -> Iterator[bytes]:
            self.made.append(key)
            yield from (make or self.plain)(job)

        return Plan(key, world, lanes, count, counted)

    @staticmethod
    def plain(job: Job) -> Iterator[bytes]:
        for index in range(3):
            yield b"%d" % index


@pytest.fixture
def kitchen() -> Kitchen:
    return Kitchen()


async def drain(streams: Streams, plan: Plan) -> list[bytes | Step]:
    return [item async for item in streams.run(lambda: plan)]


async def begin(stream: AsyncGenerator[bytes | Step, None]) -> "asyncio.Task[bytes | Step]":
    task = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    return task


async def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def test_items_come_in_order_as_they_are_made_and_off_the_event_loop(kitchen: Kitchen) -> None:
    go = threading.Event()
    names = []

    def make(job: Job) -> Iterator[bytes]:
        yield b"first"
        assert go.wait(DEADLINE_S)
        names.append(threading.current_thread().name)
        yield b""
        yield b"x" * (5 << 20)  # more than stays in memory

    with Streams(2, 0) as streams:
        async with aclosing(streams.run(lambda: kitchen.plan("k", make))) as items:
            assert await anext(items) == b"first"
            go.set()
            assert [item async for item in items] == [b"", b"x" * (5 << 20)]
    assert names[0].startswith("imagine")


@pytest.mark.parametrize("error", [ValueError("broken"), GateRejectedError("yaw", 3.0, "broken")])
async def test_an_error_ends_the_stream_after_what_was_made_and_frees_its_place(
    kitchen: Kitchen, error: Exception
) -> None:
    def make(job: Job) -> Iterator[bytes]:
        yield b"1"
        raise error

    with Streams(1, 0) as streams:
        for _ in range(2):
            got = []
            with pytest.raises(type(error), match="broken"):
                async for item in streams.run(lambda: kitchen.plan("k", make)):
                    got.append(item)
            assert got == [b"1"]
        assert streams.open == 0


async def test_a_plan_that_is_refused_frees_its_place() -> None:
    def plan() -> Plan:
        raise InvalidInputError("no path")

    with Streams(1, 0) as streams:
        for _ in range(3):
            with pytest.raises(InvalidInputError):
                [item async for item in streams.run(plan)]


async def test_a_world_that_makes_too_few_frames_is_found_out(kitchen: Kitchen) -> None:
    with Streams(1, 0) as streams, pytest.raises(World2VLMError, match="'w' made 3 of 4 frames"):
        await drain(streams, kitchen.plan("k", count=4))


async def test_one_stream_too_many_is_refused_with_a_hint_until_another_ends(kitchen: Kitchen) -> None:
    with Streams(1, 1) as streams:
        async with (
            aclosing(streams.run(lambda: kitchen.plan("a"))) as first,
            aclosing(streams.run(lambda: kitchen.plan("b"))) as second,
        ):
            # Both are open though there is one thread: none waits for the other's reader.
            assert (await anext(first), await anext(second)) == (b"0", b"0")
            with pytest.raises(OverloadedError, match="2 streams") as caught:
                await anext(streams.run(lambda: kitchen.plan("c")))
            assert 0.1 <= caught.value.retry_after_s <= 30
        assert await drain(streams, kitchen.plan("c")) == [b"0", b"1", b"2"]


async def test_at_most_max_workers_are_made_at_once_and_as_many_of_a_world_as_it_has_lanes(kitchen: Kitchen) -> None:
    lock, running, most = threading.Lock(), {"cpu": 0, "gpu": 0}, {"cpu": 0, "gpu": 0}

    def making(world: str) -> Making:
        def make(job: Job) -> Iterator[bytes]:
            with lock:
                running[world] += 1
                most[world] = max(most[world], running[world])
            time.sleep(0.02)
            with lock:
                running[world] -= 1
            yield b"1"

        return make

    plans = [
        kitchen.plan(f"{world} {index}", making(world), 1, world, lanes)
        for index in range(6)
        for world, lanes in (("cpu", 0), ("gpu", 1))
    ]
    with Streams(2, 16) as streams:
        assert await asyncio.gather(*(drain(streams, plan) for plan in plans)) == [[b"1"]] * 12
    assert most == {"cpu": 2, "gpu": 1}


async def test_a_busy_world_keeps_no_other_waiting(kitchen: Kitchen) -> None:
    go = threading.Event()

    def make(job: Job) -> Iterator[bytes]:
        assert go.wait(DEADLINE_S)
        yield b"late"

    with Streams(1, 4) as streams:
        slow = asyncio.create_task(drain(streams, kitchen.plan("slow", make, 1, "gpu", 1)))
        await until(lambda: kitchen.made == ["slow"])
        queued = asyncio.create_task(drain(streams, kitchen.plan("next", make, 1, "gpu", 1)))
        await until(lambda: streams.waiting == 1)
        assert await drain(streams, kitchen.plan("quick")) == [b"0", b"1", b"2"]
        go.set()
        assert await slow == await queued == [b"late"]


async def test_a_stream_that_is_left_stops_within_one_step(kitchen: Kitchen) -> None:
    started, steps, ended = threading.Event(), [0], threading.Event()

    def make(job: Job) -> Iterator[bytes]:
        # A world that makes all frames at once, in many steps of its own.
        while not job.is_cancelled():
            steps[0] += 1
            started.set()
            time.sleep(0.002)
        ended.set()
        return
        yield

    with Streams(1, 0) as streams:
        task = asyncio.create_task(drain(streams, kitchen.plan("k", make)))
        await asyncio.to_thread(started.wait, DEADLINE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert streams.open == 0
        assert await asyncio.to_thread(ended.wait, DEADLINE_S)
        # Its thread is free again.
        assert await drain(streams, kitchen.plan("next")) == [b"0", b"1", b"2"]


async def test_what_waits_and_is_left_is_never_begun(kitchen: Kitchen) -> None:
    go = threading.Event()

    def make(job: Job) -> Iterator[bytes]:
        assert go.wait(DEADLINE_S)
        yield b"1"

    with Streams(1, 1) as streams:
        first = asyncio.create_task(drain(streams, kitchen.plan("first", make, 1)))
        await until(lambda: kitchen.made == ["first"])
        second = asyncio.create_task(drain(streams, kitchen.plan("second")))
        await until(lambda: streams.waiting == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        assert await first == [b"1"]
    assert kitchen.made == ["first"]


async def test_what_several_ask_for_at_once_is_made_once_and_one_may_leave(kitchen: Kitchen) -> None:
    go = threading.Event()

    def make(job: Job) -> Iterator[bytes]:
        yield b"1"
        assert go.wait(DEADLINE_S)
        yield b"2" if not job.is_cancelled() else b"cancelled"

    with Streams(2, 8) as streams:
        plan = kitchen.plan("k", make, 2)
        tasks = [asyncio.create_task(drain(streams, plan)) for _ in range(6)]
        await until(lambda: kitchen.made == ["k"])
        late = streams.run(lambda: plan)
        # Who comes later gets it from the beginning.
        assert await anext(late) == b"1"
        tasks.pop().cancel()
        await late.aclose()
        go.set()
        assert await asyncio.gather(*tasks) == [[b"1", b"2"]] * 5
    assert kitchen.made == ["k"]


async def test_who_asks_after_all_have_left_does_not_get_what_is_being_stopped(kitchen: Kitchen) -> None:
    go = threading.Event()

    def make(job: Job) -> Iterator[bytes]:
        yield b"1"
        assert go.wait(DEADLINE_S)
        if not job.is_cancelled():
            yield b"2"

    with Streams(2, 8) as streams:
        plan = kitchen.plan("k", make, 2)
        first = streams.run(lambda: plan)
        assert await anext(first) == b"1"
        await first.aclose()
        again = asyncio.create_task(drain(streams, plan))
        await until(lambda: kitchen.made == ["k", "k"])
        go.set()
        assert await again == [b"1", b"2"]


async def test_who_asks_just_when_it_was_stopped_does_not_get_the_half_of_it(
    kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted, leave = threading.Event(), Job.leave

    def leave_late(job: Job, listener: Callable[[], None]) -> bool:
        """Leave, and find that the thread has stopped already."""
        was_last, deadline = leave(job, listener), time.monotonic() + DEADLINE_S
        while was_last and not job.ended and time.monotonic() < deadline:
            time.sleep(0.001)
        return was_last

    def make(job: Job) -> Iterator[bytes]:
        yield b"1"
        if len(kitchen.made) > 1:
            yield b"2"
        while not job.is_cancelled() and len(kitchen.made) == 1:
            time.sleep(0.001)

    monkeypatch.setattr(Job, "leave", leave_late)
    # The thread is held up between the end of the work and forgetting it.
    monkeypatch.setattr(Streams, "_note", lambda *_: noted.wait(DEADLINE_S))
    with Streams(2, 8) as streams:
        plan = kitchen.plan("k", make, 2)
        first = streams.run(lambda: plan)
        assert await anext(first) == b"1"
        await first.aclose()
        assert await drain(streams, plan) == [b"1", b"2"]
        noted.set()
    assert kitchen.made == ["k", "k"]


async def test_steps_are_told_until_frames_come(kitchen: Kitchen) -> None:
    def make(job: Job) -> Iterator[bytes]:
        for done in range(3):
            job.on_step(done + 1, 3)
        yield b"1"

    with Streams(1, 0) as streams:
        got = await drain(streams, kitchen.plan("k", make, 1))
    assert got == [Step(1, 3), Step(2, 3), Step(3, 3), b"1"]


# The cache


async def test_what_was_made_is_not_made_again_not_even_by_another_process(kitchen: Kitchen, tmp_path: Path) -> None:
    for _ in range(2):
        with Streams(1, 0, FrameCache(tmp_path, 1 << 20)) as streams:
            for _ in range(2):
                assert await drain(streams, kitchen.plan("abc")) == [b"0", b"1", b"2"]
    assert kitchen.made == ["abc"]


async def test_what_failed_or_was_left_is_not_kept(kitchen: Kitchen, tmp_path: Path) -> None:
    def fail(job: Job) -> Iterator[bytes]:
        yield b"1"
        raise GateRejectedError("yaw", 1.0, "it turns right")

    with Streams(1, 0, FrameCache(tmp_path, 1 << 20)) as streams:
        for _ in range(2):
            with pytest.raises(GateRejectedError):
                await drain(streams, kitchen.plan("abc", fail))
    assert kitchen.made == ["abc", "abc"] and not list(tmp_path.glob("*/*"))


async def test_a_trajectory_is_computed_once_however_requests_meet(kitchen: Kitchen, tmp_path: Path) -> None:
    with Streams(4, 64, FrameCache(tmp_path, 1 << 20)) as streams:

        async def ask(index: int) -> list[bytes | Step]:
            await asyncio.sleep(0.001 * (index % 7))
            return await drain(streams, kitchen.plan(f"key{index % 3}"))

        assert await asyncio.gather(*(ask(index) for index in range(60))) == [[b"0", b"1", b"2"]] * 60
    assert sorted(kitchen.made) == ["key0", "key1", "key2"]


def test_a_corrupt_entry_counts_as_none(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 1 << 20)
    cache.put("abc", [b"first", b"", b"third"])
    (path,) = tmp_path.glob("*/*")
    whole = path.read_bytes()
    assert cache.get("abc") == [b"first", b"", b"third"]
    for broken in (
        whole[:-1],
        whole[:-1] + b"X",
        b"",
        b"\n",
        b"[]\n",
        whole.replace(b"[5, 0, 5]", b"[5, 5]"),
        whole[9:],
    ):
        path.write_bytes(broken)
        assert cache.get("abc") is None
        assert not path.exists()
        path.write_bytes(whole)
    assert cache.get("abc") == [b"first", b"", b"third"]
    assert cache.get("another") is None


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 10_000)
    for index in range(6):
        cache.put(f"{index:02d}", [bytes(1400)])
        time.sleep(0.01)
    assert cache.get("00") is not None
    cache.put("06", [bytes(1400)])
    kept = {path.name for path in tmp_path.glob("*/*")}
    assert "00" in kept and "06" in kept and "01" not in kept
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 10_000
    cache.put("big", [bytes(20_000)])
    assert cache.get("big") is None and cache.get("06") is not None


def test_several_processes_share_a_folder_and_its_bound(tmp_path: Path) -> None:
    one, other = FrameCache(tmp_path, 10_000), FrameCache(tmp_path, 10_000)
    for index in range(40):
        (one if index % 2 else other).put(f"{index:02d}", [bytes(900)])
        assert (other if index % 2 else one).get(f"{index:02d}") == [bytes(900)]
    # Each counts only what itself has put there since it last looked.
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 20_000


def test_a_folder_that_cannot_be_written_costs_time_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = FrameCache(tmp_path / "file", 1000)
    cache.put("abc", [b"1"])
    assert cache.get("abc") is None


def test_what_a_killed_writer_left_goes_in_time(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 1000)
    old, new = tmp_path / "ab" / ".killed", tmp_path / "ab" / ".writing"
    old.parent.mkdir()
    old.write_bytes(bytes(100))
    new.write_bytes(bytes(100))

    os.utime(old, (0, 0))
    for index in range(5):
        cache.put(f"{index}x", [bytes(300)])
    assert not old.exists() and new.exists()
