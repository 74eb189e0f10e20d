"""Paths of one photo that wait for a world are made at once, and each stays its caller's own."""

import asyncio
import io
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from teacher_service.batches import Order, Waiting
from teacher_service.cache import FrameCache
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.there_and_back import ThereAndBack
from teacher_service.gating import Gating
from teacher_service.jobs import Job, Plan, Step
from teacher_service.objects import ObjectFilters, WithObjects
from teacher_service.paths import Waypoint
from teacher_service.planning import Limits, Planner
from teacher_service.service import Teacher
from teacher_service.streams import Streams
from teacher_service.worlds.base import ImagineSpec, Photo, World
from teacher_service.worlds.diffusion import VideoWorld
from teacher_service.worlds.diffusion_options import VideoOptions
from teacher_service.worlds.framing import Track
from teacher_service.worlds.takes import Audience, Film, Stopped
from tests.detector_kit import GivenDetections
from tests.teacher_kit import INFO
from world2vlm import convert
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.errors import GateRejectedError, InvalidInputError, OverloadedError
from world2vlm.images import encode_png
from world2vlm.v1 import teacher_pb2

DEADLINE_S = 20
SIDE, STEPS = 16, 3
LONG = "turn left 40 degrees"
OPTIONS = VideoOptions("", width=SIDE, height=SIDE, max_frames=17)


class FlatWorld(VideoWorld):
    """Videos of one grey each, by the seed. Every call of the model waits until it is let go.

    Attributes:
        calls: the seeds of each call.
        stopped: how many calls were stopped.
        error: what a call raises.
    """

    def __init__(self, max_batch: int) -> None:
        super().__init__(replace(INFO, takes_scenes=False), OPTIONS, 8, max_batch)
        self.calls: list[list[int]] = []
        self.stopped = 0
        self.error: Exception | None = None
        self._go = threading.Semaphore(0)

    def let_go(self, calls: int = 1) -> None:
        self._go.release(calls)

    def _check(self, photo: Photo, path: Sequence[Waypoint]) -> None:
        if path[-1].c2w[2, 3] < 0:
            raise GateRejectedError("collision", 0.1, "there is a wall behind")

    def _films(self, photo: Photo, tracks: Sequence[Track], seeds: Sequence[int], audience: Audience) -> list[Film]:
        self.calls.append(list(seeds))
        try:
            while not self._go.acquire(timeout=0.005):
                audience.check()
            for step in range(STEPS):
                audience.tell(step + 1, STEPS)
        except Stopped:
            self.stopped += 1
            raise
        if self.error is not None:
            raise self.error
        shape = (len(tracks[0].poses), SIDE, SIDE)
        return [Film(np.full((*shape, 3), seed, np.uint8), np.zeros(shape, np.bool_)) for seed in seeds]


@dataclass
class Desk:
    """Where requests are made, and the streams that answer them."""

    world: FlatWorld
    planner: Planner
    streams: Streams

    def plan(self, seed: int, path: str = "turn left 10 degrees", grey: int = 90) -> Plan:
        png = encode_png(np.full((SIDE, SIDE, 3), grey, np.uint8))
        actions = teacher_pb2.Actions(actions=map(convert.action_to_proto, parse_actions(path)))
        photo = teacher_pb2.PhotoAnchor(image={"data": png})
        return self.planner.plan(
            teacher_pb2.ImagineRequest(photo=photo, actions=actions, key_frames_only=True, seed=seed)
        )

    def ask(self, seed: int, path: str = "turn left 10 degrees", grey: int = 90) -> "asyncio.Task[list[bytes | Step]]":
        async def drain() -> list[bytes | Step]:
            return [item async for item in self.streams.run(partial(self.plan, seed, path, grey))]

        return asyncio.create_task(drain())

    async def keep_busy(self) -> "asyncio.Task[list[bytes | Step]]":
        """Have the world at work on another photo."""
        busy = self.ask(10, grey=7)
        await until(lambda: self.world.calls == [[10]])
        return busy

    async def wait_for(self, *asked: "asyncio.Task[Any]") -> None:
        """Let the busy world go when so many wait."""
        await until(lambda: self.streams.waiting == len(asked))
        self.world.let_go()


@asynccontextmanager
async def desk(
    max_batch: int = 4,
    gating: Gating | None = None,
    cache: FrameCache | None = None,
    wrapped: Callable[[World], World] = lambda world: world,
) -> AsyncIterator[Desk]:
    world = FlatWorld(max_batch)
    planner = Planner(Teacher([wrapped(world)], gating=gating), Limits(1 << 20, 1 << 20, 512))
    with Streams(2, 64, cache) as streams:
        yield Desk(world, planner, streams)


async def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


async def left(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def told(items: Sequence[bytes | Step]) -> list[Step]:
    return [item for item in items if isinstance(item, Step)]


def greys(items: Sequence[bytes | Step]) -> list[int]:
    """What each frame shows, in the order of their numbers."""
    frames = [teacher_pb2.Frame.FromString(item) for item in items if isinstance(item, bytes)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    return [int(np.asarray(Image.open(io.BytesIO(frame.image.data)))[0, 0, 0]) for frame in frames]


def both_ways(world: World) -> World:
    """As the service wraps a world that is to prove itself, with objects."""
    return WithObjects(ThereAndBack(world, GateSettings()), GivenDetections([[]] * 9), ObjectFilters())


@pytest.mark.parametrize("wrapped", [lambda world: world, both_ways], ids=["alone", "wrapped"])
async def test_paths_of_one_photo_that_wait_are_made_at_once(wrapped: Callable[[World], World]) -> None:
    async with desk(wrapped=wrapped) as at:
        busy = await at.keep_busy()
        # Near to what the photo shows: a way back is to find it again.
        one, other = at.ask(91), at.ask(92, "turn right 5 degrees; turn right 5 degrees")
        await at.wait_for(one, other)
        at.world.let_go()
        assert (greys(await one), greys(await other)) == ([90, 91], [90, 92, 92])
        assert told(await one) == told(await other) == [Step(1, 3), Step(2, 3), Step(3, 3)]
        assert [sorted(seeds) for seeds in at.world.calls] == [[10], [91, 92]]
        assert greys(await busy) == [7, 10]


async def test_other_photos_and_other_lengths_are_made_apart_and_in_their_turn() -> None:
    async with desk() as at:
        await at.keep_busy()
        asked = [at.ask(1), at.ask(2, grey=91), at.ask(3, LONG), at.ask(4)]
        await at.wait_for(*asked)
        at.world.let_go(3)
        assert [greys(items) for items in await asyncio.gather(*asked)] == [[90, 1], [91, 2], [90, 3], [90, 4]]
        assert sorted(map(sorted, at.world.calls[1:])) == [[1, 4], [2], [3]]
        keys = [batch.key for batch in (at.plan(1).batch, at.plan(4).batch, at.plan(1, LONG).batch) if batch]
        assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, [1] * 5), (3, [3, 2])])
async def test_at_most_max_batch_are_made_at_once(max_batch: int, sizes: list[int]) -> None:
    async with desk(max_batch) as at:
        await at.keep_busy()
        asked = [at.ask(seed) for seed in range(5)]
        await at.wait_for(*asked)
        at.world.let_go(5)
        assert [greys(items) for items in await asyncio.gather(*asked)] == [[90, seed] for seed in range(5)]
        assert [len(seeds) for seeds in at.world.calls[1:]] == sizes


async def test_a_turn_takes_no_more_than_max_batch_along_and_each_goes_once() -> None:
    async with desk(3) as at:
        orders, waiting = [Order(at.plan(seed), Job()) for seed in range(5)], Waiting()
        for order in orders:
            waiting.put(order)
        taken = [waiting.take(order) for order in orders]
        assert taken == [orders[:3], [], [], orders[3:], []]


async def test_nothing_waits_for_others_to_come() -> None:
    async with desk() as at:
        one = at.ask(1)
        await until(lambda: at.world.calls == [[1]])
        other = at.ask(2)
        await at.wait_for(other)
        at.world.let_go()
        assert (greys(await one), greys(await other)) == ([90, 1], [90, 2])
        assert at.world.calls == [[1], [2]]


# Leaving


async def test_one_that_is_left_does_not_stop_the_others_and_is_made_anew_for_who_asks_again() -> None:
    async with desk() as at:
        await at.keep_busy()
        one, other = at.ask(1), at.ask(2)
        await at.wait_for(one, other)
        await until(lambda: len(at.world.calls) == 2)
        await left(one)
        again = at.ask(1)
        await until(lambda: at.streams.waiting == 1)
        at.world.let_go(2)
        assert greys(await other) == [90, 2] and len(told(await other)) == STEPS
        assert greys(await again) == [90, 1] and len(told(await again)) == STEPS
        assert [sorted(seeds) for seeds in at.world.calls] == [[10], [1, 2], [1]]
        assert at.world.stopped == 0


async def test_the_work_stops_when_all_are_left() -> None:
    async with desk() as at:
        await at.keep_busy()
        one, other = at.ask(1), at.ask(2)
        await at.wait_for(one, other)
        await until(lambda: len(at.world.calls) == 2)
        await left(one)
        await left(other)
        # Nobody lets the call go.
        await until(lambda: at.world.stopped == 1)
        third = at.ask(3)
        await until(lambda: len(at.world.calls) == 3)
        at.world.let_go()
        assert greys(await third) == [90, 3]


async def test_what_is_left_before_its_turn_takes_no_place_and_nobody_along() -> None:
    async with desk(2) as at:
        await at.keep_busy()
        asked = []
        for seed in range(4):
            asked.append(at.ask(seed))
            await until(lambda seed=seed: at.streams.waiting == seed + 1)  # type: ignore[misc]
        await left(asked[0])
        await left(asked[2])
        at.world.let_go(2)
        assert (greys(await asked[1]), greys(await asked[3])) == ([90, 1], [90, 3])
        assert at.world.calls == [[10], [1, 3]]


async def test_however_requests_come_and_go_each_gets_its_own() -> None:
    chance = random.Random(0)
    async with desk(3) as at:
        at.world.let_go(10_000)

        async def ask() -> None:
            seed, grey = chance.randrange(6), chance.choice([80, 90])
            leaves = chance.random() < 0.4
            await asyncio.sleep(chance.random() * 0.3)
            task = at.ask(seed, grey=grey)
            if leaves:
                await asyncio.sleep(chance.random() * 0.03)
                await left(task)
            else:
                assert greys(await task) == [grey, seed]

        await asyncio.gather(*(ask() for _ in range(60)))
        assert at.streams.open == 0
        await until(lambda: at.streams.waiting == 0)
        assert max(map(len, at.world.calls)) <= 3


# Errors


async def test_what_is_wrong_with_one_is_its_own() -> None:
    def strict(info: Any, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        for index, imagined in enumerate(frames):
            if spec.seed == 4 and index:
                raise GateRejectedError("yaw", 4.0, "it turns right")
            yield imagined

    async with desk(gating=strict) as at:
        await at.keep_busy()
        behind = at.ask(2, "move backward 0.3 meters")
        fine, turned = at.ask(3), at.ask(4)
        long = at.ask(5, "turn left 60 degrees")
        await at.wait_for(behind, fine, turned, long)
        at.world.let_go(2)
        with pytest.raises(GateRejectedError, match="wall behind"):
            await behind
        with pytest.raises(GateRejectedError, match="turns right"):
            await turned
        with pytest.raises(InvalidInputError, match="needs 25 frames"):
            await long
        assert greys(await fine) == [90, 3]
        # The path that was rejected before anything was made had no place in the call.
        assert sorted(at.world.calls[1]) == [3, 4] and len(at.world.calls) == 2


async def test_what_is_wrong_with_the_call_reaches_all_of_it_and_nobody_else() -> None:
    async with desk() as at:
        await at.keep_busy()
        one, other = at.ask(1), at.ask(2)
        await at.wait_for(one, other)
        await until(lambda: len(at.world.calls) == 2)
        at.world.error = OverloadedError("the device ran out of memory", 1.0)
        at.world.let_go()
        for each in (one, other):
            with pytest.raises(OverloadedError, match="ran out of memory"):
                await each
        at.world.error = None
        at.world.let_go()
        assert greys(await at.ask(1)) == [90, 1]


# The cache


async def test_each_is_kept_as_its_own_and_what_another_process_kept_is_not_made(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 1 << 20)
    async with desk(cache=cache) as at:
        await at.keep_busy()
        asked = [at.ask(seed) for seed in (1, 2, 3)]
        await until(lambda: at.streams.waiting == 3)
        cache.put(at.plan(2).key, [b"kept", b"elsewhere"])
        at.world.let_go(2)
        one, two, three = await asyncio.gather(*asked)
        assert (greys(one), two, greys(three)) == ([90, 1], [b"kept", b"elsewhere"], [90, 3])
        assert [sorted(seeds) for seeds in at.world.calls] == [[10], [1, 3]]
        await until(lambda: all(cache.get(at.plan(seed).key) for seed in (1, 3)))
        assert [greys(await at.ask(seed)) for seed in (3, 1)] == [[90, 3], [90, 1]]
        assert len(at.world.calls) == 2
