"""Views for base pre-training, from the teacher service: what the anchors of many rooms see, and no step from there."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.dense import patch_targets
from trainer.patience import patiently
from trainer.views import Views
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import Floats
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.files import temporary_name
from world2vlm.images import decode_image, decode_map

RENDER_SIZE = 128
ROOMS_PER_SHARD = 50
_WORKERS = 8
_PATIENCE_S = 120.0
# The path of a camera that stays at its anchor.
_STAY = np.eye(4)[None]


class SceneTeacher(Protocol):
    """What collecting needs of `world2vlm.clients.teacher.TeacherClient`; several threads ask at once."""

    def imagine_scene(
        self, scene: int, anchor: int, path: Floats, /, *, width: int, height: int, with_instances: bool
    ) -> list[Frame]:
        """The frames of a path, poses (N, 4, 4) relative to the anchor camera, the anchor's own view first."""
        ...


def collect_views(
    teacher: SceneTeacher,
    first_seed: int,
    rooms: int,
    anchors: int,
    frame_size: int,
    grid: int,
    cache: Path,
    on_progress: Callable[[int], None] = lambda rooms: None,
) -> Views:
    """Collect the views of the anchors of rooms `first_seed` to `first_seed + rooms - 1`.

    Args:
        teacher: who renders the rooms, 128 x 128 pixels each view.
        first_seed: the first room's seed.
        rooms: how many rooms.
        anchors: anchor poses tried in each room; those that a gate rejects are left out.
        frame_size: side of the student's frames in pixels (bicubic for the frames, nearest for the instance maps).
        grid: patches along a side, for the dense targets.
        cache: folder for shards of whole rooms; an interrupted collection continues there. One folder a teacher: shards
            are known by what was asked, not by who answered.
        on_progress: told how many more rooms are done.

    Returns:
        The views, room by room and anchor by anchor; `scenes` are the rooms' seeds.

    Raises:
        InvalidInputError: no anchor of any room gave a view.
        UnavailableError, OverloadedError: the teacher stayed away or busy for two minutes.
    """
    parts = []
    with ThreadPoolExecutor(_WORKERS) as threads:
        for start in range(first_seed, first_seed + rooms, ROOMS_PER_SHARD):
            seeds = range(start, min(start + ROOMS_PER_SHARD, first_seed + rooms))
            shard = cache / f"rooms-{start}-{len(seeds)}-anchors-{anchors}-{frame_size}px-grid-{grid}"
            if not shard.exists():
                looks = threads.map(lambda seed: _look_around(teacher, seed, anchors), seeds)
                _write_shard(shard, _to_views(seeds, looks, frame_size, grid))
            parts.append(Views.load(shard / "views.safetensors"))
            on_progress(len(seeds))
    views = Views.concatenate(parts)
    if not views.objects:
        raise InvalidInputError(f"no anchor of rooms {first_seed} to {first_seed + rooms - 1} gave a view")
    return views


def _look_around(teacher: SceneTeacher, seed: int, anchors: int) -> list[Frame]:
    """What a room's anchors see, one after the other: the teacher then builds the room once."""
    looks = (_look(teacher, seed, anchor) for anchor in range(anchors))
    return [frame for frame in looks if frame is not None]


def _look(teacher: SceneTeacher, seed: int, anchor: int) -> Frame | None:
    """What an anchor sees; None where a gate rejects it."""
    try:
        frames = patiently(
            lambda: teacher.imagine_scene(
                seed, anchor, _STAY, width=RENDER_SIZE, height=RENDER_SIZE, with_instances=True
            ),
            _PATIENCE_S,
        )
    except GateRejectedError:
        return None
    return frames[0]


def _to_views(seeds: Iterable[int], looks: Iterable[list[Frame]], frame_size: int, grid: int) -> Views:
    frames: list[NDArray[np.uint8]] = []
    targets: list[NDArray[np.float32]] = []
    scenes: list[int] = []
    objects: list[Sequence[ObjectView]] = []
    for seed, frame in ((seed, frame) for seed, room in zip(seeds, looks, strict=True) for frame in room):
        instances = Image.fromarray(decode_map(frame.instances_png))
        frames.append(_resize(decode_image(frame.png), frame_size, Image.Resampling.BICUBIC))
        targets.append(patch_targets(_resize(instances, frame_size, Image.Resampling.NEAREST), frame.objects, grid))
        scenes.append(seed)
        objects.append(frame.objects)
    return Views(
        np.array(frames, dtype=np.uint8).reshape(-1, frame_size, frame_size, 3),
        np.array(targets, dtype=np.float32).reshape(-1, grid * grid, 6),
        np.array(scenes, dtype=np.int64),
        objects,
    )


def _resize(image: Image.Image, side: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(image.resize((side, side), resampling))


def _write_shard(shard: Path, views: Views) -> None:
    """Write a shard's folder in one rename."""
    staging = shard.with_name(temporary_name())
    try:
        views.save(staging / "views.safetensors")
        os.rename(staging, shard)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
