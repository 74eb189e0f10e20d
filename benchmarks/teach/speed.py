"""How fast the geometric world is, and what of the time goes into anything but imagining."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serve.findings import Claim, Part
from benchmarks.teach.transitions import transitions
from teacher_service.app import in_background, make_teacher
from teacher_service.paths import Waypoint, from_actions
from teacher_service.service import Teacher
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from world2vlm.actions import parse_actions
from world2vlm.clients.teacher import TeacherClient
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings

SIDES = (64, 224)
FILLS = {"tiny": "painted", "none": "smooth fill"}
_PHOTOS = 4
_PATH = "turn left 20 degrees; move forward 0.2 meters; move right 0.2 meters"
_WORKERS = 2
_SHARE = 0.10


def time_geometric(repetitions: int) -> Part:
    """Time photos with depth, painted and filled smoothly, in this process; and the whole way through the service."""
    figures, claims = {}, []
    for side in SIDES:
        photos = [each.photo for each in transitions(_PHOTOS, side)]
        shares = _shares(photos, repetitions)
        figures[f"{side} px"] = {
            name: {
                "frames/s": _frames_a_second(
                    GeometricWorld(options=GeometricOptions(inpaint_model=fill)), photos, repetitions
                ),
                "share of decoding, encoding, transport": shares[fill],
            }
            for fill, name in FILLS.items()
        }
        claims.append(Claim(f"share of decoding, encoding and transport, {side} px", shares["tiny"], _SHARE))
    return Part({"threads": _WORKERS, "frames": _PHOTOS * len(_path()), **figures}, tuple(claims))


def _frames_a_second(world: GeometricWorld, photos: Sequence[Photo], repetitions: int) -> float:
    """Frames a second of as many streams as there are threads; the median of the repetitions, after a first one."""
    specs = [ImagineSpec(photo, _path()) for photo in photos]
    rates = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in range(1 + repetitions):
            start = perf_counter()
            frames = sum(pool.map(lambda spec: len(list(world.imagine(spec))), specs))
            rates.append(frames / (perf_counter() - start))
    return median(rates[1:])


def _shares(photos: Sequence[Photo], repetitions: int) -> dict[str, float]:
    """By fill, the share of the processor's time that service and client spend on neither making nor judging.

    What they spend is measured on the smooth fill, where it is not lost among the painting's seconds: it is the same.
    """
    settings = {
        fill: TeacherSettings.load(
            host="127.0.0.1",
            port=0,
            worlds=("geometric",),
            world_options={"geometric": {"inpaint_model": fill}},
            cache_dir=None,
        )
        for fill in FILLS
    }
    teachers = {fill: make_teacher(each) for fill, each in settings.items()}
    with in_background(settings["none"]) as port, TeacherClient(f"127.0.0.1:{port}") as client:
        found = []
        for _ in range(1 + repetitions):
            making = {fill: _making_seconds(teacher, photos) for fill, teacher in teachers.items()}
            other = _asking_seconds(client, photos) - making["none"]
            found.append({fill: other / (other + making[fill]) for fill in FILLS})
    return {fill: median(each[fill] for each in found[1:]) for fill in FILLS}


def _asking_seconds(client: TeacherClient, photos: Sequence[Photo]) -> float:
    """Seconds of the processor, the service's and the client's, for a path from each photo."""
    start = process_time()
    poses = np.stack([waypoint.c2w for waypoint in _path()[1:]])
    for photo in photos:
        client.imagine_photo(
            encode_png(photo.pixels), poses, depth=photo.depth, intrinsics=photo.intrinsics, keep_rejected=True
        )
    return process_time() - start


def _making_seconds(teacher: Teacher, photos: Sequence[Photo]) -> float:
    """Seconds of the processor that making and judging take, less the world's own encoding."""
    start = process_time()
    specs = [ImagineSpec(photo, _path()) for photo in photos]
    made = [frame for spec in specs for frame in teacher.imagine("geometric", spec)]
    whole = process_time() - start
    pictures = [data for each in made for data in (each.png, each.observed_png) if data]
    decoded = [_decode(data) for data in pictures]
    start = process_time()
    for pixels in decoded:
        encode_png(pixels)
    return whole - (process_time() - start)


def _decode(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


def _path() -> tuple[Waypoint, ...]:
    return from_actions(parse_actions(_PATH))
