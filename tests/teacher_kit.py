"""Teachers for tests: a world that makes all frames at once, in steps that can be watched, behind a real port."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from teacher_service.app import build_server, make_streams
from teacher_service.gating import Gating
from teacher_service.service import Teacher
from teacher_service.worlds.base import ImagineSpec, Photo, World
from world2vlm import rpc
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

INFO = WorldInfo("steps", "Flat frames, all at once", True, True, True, True, "Apache-2.0", True, "ab" * 32, lanes=1)

FOREVER = 666
STOPPED = "the world stopped"
"""What a cancelled call prints, for those who can only read its process's log."""


@dataclass
class StepWorld:
    """Takes `steps` steps of `pause_s` seconds, then yields all frames: grey, by the seed.

    Attributes:
        calls: the specs that were begun.
        done: steps taken, of all calls.
        stopped: how many calls were cancelled.
    """

    steps: int = 3
    pause_s: float = 0.0
    info: WorldInfo = INFO
    calls: list[ImagineSpec] = field(default_factory=list)
    done: int = 0
    stopped: int = 0
    most_at_once: int = 0
    began: threading.Event = field(default_factory=threading.Event)
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        with self._lock:
            self.calls.append(spec)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            for step in range(self.steps):
                if spec.is_cancelled():
                    self.stopped += 1
                    print(STOPPED, flush=True)
                    return
                time.sleep(self.pause_s)
                self.done += 1
                self.began.set()
                spec.on_step(step + 1, self.steps)
            yield from self._frames(spec)
        finally:
            with self._lock:
                self._now -= 1

    def _frames(self, spec: ImagineSpec) -> Iterator[Frame]:
        width, height = spec.anchor.pixels.shape[1::-1] if isinstance(spec.anchor, Photo) else spec.size
        intrinsics = (
            spec.anchor.intrinsics if isinstance(spec.anchor, Photo) else intrinsics_from_fov(90, width, height)
        )
        for index, waypoint in enumerate(spec.path):
            grey = np.full((height, width, 3), (spec.seed + 10 * index) % 256, np.uint8)
            yield Frame(
                encode_png(grey),
                waypoint.c2w,
                intrinsics,
                (width, height),
                waypoint.actions_step,
                waypoint.key_frame,
            )


def make(settings: TeacherSettings) -> StepWorld:
    """What an entry point names."""
    return SlowWorld()


class SlowWorld(StepWorld):
    """Takes for ever where the seed says so."""

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        while spec.seed == FOREVER and not spec.is_cancelled():
            self.began.set()
            time.sleep(0.01)
        yield from super().imagine(spec)


class WarmWorld(StepWorld):
    """Is warm when it is told to be."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.go = threading.Event()
        self.error = error

    def warm(self) -> None:
        assert self.go.wait(60)
        if self.error is not None:
            raise self.error


def teacher_settings(**changes: Any) -> TeacherSettings:
    return TeacherSettings(**{"port": 0, "metrics_port": -1, **changes})


@contextmanager
def serving(*worlds: World, gating: Gating | None = None, made_with: str = "", **changes: Any) -> Iterator[str]:
    """A service with these worlds; yields its address."""
    settings = teacher_settings(**changes)
    teacher = Teacher(worlds, {world.info.name: made_with for world in worlds}, gating)
    with (
        make_streams(settings) as streams,
        rpc.in_background(lambda: build_server(settings, teacher, streams)) as port,
    ):
        yield f"127.0.0.1:{port}"


def named(world: StepWorld, **changes: Any) -> StepWorld:
    """The same world with other words about itself."""
    world.info = replace(world.info, **changes)
    return world


def eventually(happened: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def seeds(specs: Sequence[ImagineSpec]) -> list[int]:
    return [spec.seed for spec in specs]
