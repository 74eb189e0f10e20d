"""Key frames from the renderer in this process, against the same through the service over loopback."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.rooms import Trajectory, find_trajectories, imagine
from benchmarks.serve.findings import Part
from benchmarks.timing import Result, interleave
from teacher_service.worlds.renderer import RendererWorld
from trainer.imagining import FRAME_SIZE
from world2vlm.bundles import Frame
from world2vlm.clients.teacher import TeacherClient
from world2vlm.local.process import ManagedProcess
from world2vlm.settings import TeacherSettings

PARALLEL = 4
_START_SECONDS = 60.0
_GRACE_SECONDS = 10.0


def time_service(rooms: int, trajectories: int, repetitions: int) -> Part:
    """Time the renderer world in this process, through the service one stream after the other, and four at once."""
    settings = TeacherSettings.load(port=0, metrics_port=-1, scene_cache=rooms)
    world = RendererWorld(settings.min_clearance_m, settings.min_object_area, settings.scene_cache)
    found = find_trajectories(world, rooms, trajectories)
    with serve(settings) as client, ThreadPoolExecutor(PARALLEL) as pool:
        local = [imagine(world, each.scene, each.candidate) for each in found]
        check_equal(local, [ask(client, each) for each in found])
        sides = {
            "in-process": lambda: [imagine(world, each.scene, each.candidate) for each in found],
            "gRPC, 1 stream": lambda: [ask(client, each) for each in found],
            f"gRPC, {PARALLEL} streams": lambda: list(pool.map(lambda each: ask(client, each), found)),
        }
        seconds = interleave(sides, repetitions)
    sizes = {
        "trajectories": len(found),
        "rooms": rooms,
        "pixels a side": FRAME_SIZE,
        "the service's threads": settings.max_workers,
        "repetitions": repetitions,
    }
    result = Result("teacher", "key frames", sum(map(len, local)), sizes, seconds)
    return Part({name: result.as_json()[name] for name in ("unit", "amount", "sizes", "sides")})


@contextmanager
def serve(settings: TeacherSettings, more: Mapping[str, str] | None = None) -> Iterator[TeacherClient]:
    """Run the service as a process of its own, as it runs in earnest, and connect to it; `more` variables are its."""
    environment = {
        **(more or {}),
        "WORLD2VLM_PORT": str(settings.port),
        "WORLD2VLM_METRICS_PORT": str(settings.metrics_port),
        "WORLD2VLM_SCENE_CACHE": str(settings.scene_cache),
    }
    with tempfile.TemporaryDirectory() as folder:
        process = ManagedProcess("teacher", ["teacher_service"], environment, Path(folder))
        process.start()
        try:
            process.wait_ready(lambda: bool(_port(process.log)), _START_SECONDS)
            with TeacherClient(f"{settings.host}:{_port(process.log)}") as client:
                yield client
        finally:
            process.stop(_GRACE_SECONDS)


def ask(client: TeacherClient, each: Trajectory) -> Sequence[Frame]:
    """The key frames of a trajectory, from the service."""
    return client.imagine_scene(
        each.scene,
        each.candidate.anchor,
        each.candidate.actions,
        world="renderer",
        width=FRAME_SIZE,
        height=FRAME_SIZE,
        key_frames_only=True,
    )


def check_equal(local: Sequence[Sequence[Frame]], served: Sequence[Sequence[Frame]]) -> None:
    """Leave the program unless both give the same pictures and objects: else their times mean nothing."""
    mine, theirs = ([(frame.png, frame.objects) for frames in side for frame in frames] for side in (local, served))
    if not mine or mine != theirs:
        raise SystemExit("the service does not give the frames that the world gives in this process")
    print(f"{len(mine)} key frames are the same from both, byte for byte")


def _port(log: Path) -> str:
    """The port that the service says it serves on; empty as long as it says nothing."""
    found = re.search(r"TeacherService on port (\d+)", log.read_text(encoding="utf-8"))
    return found[1] if found else ""
