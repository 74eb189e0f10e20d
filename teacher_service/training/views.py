"""What the small networks learn from: views of procedural rooms that no round and no benchmark ever uses."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from teacher_service.scenes import Room, SceneRenderer, View, anchor_pose, build_room
from world2vlm.actions import Action, Primitive
from world2vlm.cameras import Floats, integrate, intrinsics_from_fov

# A round's scenes are numbered below a million times a million, the benchmarks' below a thousand.
FIRST_TRAINING_ROOM = 2_000_000_000_000
FIRST_HELD_OUT_ROOM = 3_000_000_000_000

_RENDERER_FOV_DEG = 90.0
_FOV_DEG = (45.0, 100.0)
_TILT_DEG, _ROLL_DEG = 8.0, 3.0
_CLEARANCE_M = 0.25
_TRIES = 20


@dataclass(frozen=True)
class Rooms:
    """Procedural rooms `first` to `first + count - 1`, each seen `views` times."""

    first: int
    count: int
    views: int


@dataclass(frozen=True)
class Shot:
    """A view and the camera that took it: K (3, 3) in pixels, c2w (4, 4) in the room's frame."""

    view: View
    intrinsics: Floats
    c2w: Floats


@dataclass(frozen=True)
class Pair:
    """A view, and the one from another pose; `relative` is the second's c2w (4, 4) in the first camera's frame."""

    before: Shot
    after: Shot
    relative: Floats


def single_shots(rooms: Rooms, shapes: tuple[tuple[int, int], ...]) -> Iterator[Shot]:
    """Yield views through lenses of 45 to 100 degrees (long side), half of them level as a round's, half tilted a bit.

    Args:
        rooms: which rooms.
        shapes: (height, width) of the views, each as likely.
    """
    for seed in range(rooms.first, rooms.first + rooms.count):
        room, rng = build_room(seed), np.random.default_rng(seed)
        renderer = SceneRenderer(room)
        for index in range(rooms.views):
            pose = _anchor(room, index)
            if pose is None:
                break
            if rng.random() < 0.5:
                pose = pose @ _tilt(rng)
            shape = shapes[int(rng.integers(len(shapes)))]
            yield _shoot(renderer, pose, _lens(rng, shape), shape)


def pairs(rooms: Rooms, shape: tuple[int, int]) -> Iterator[Pair]:
    """Yield pairs of views with one or two actions between them, of a round's sizes.

    Args:
        rooms: which rooms.
        shape: (height, width) of the views.
    """
    for seed in range(rooms.first, rooms.first + rooms.count):
        room, rng = build_room(seed), np.random.default_rng(seed)
        renderer, draw = SceneRenderer(room), random.Random(seed)
        for index in range(rooms.views):
            start = _anchor(room, index)
            relative = None if start is None else _somewhere(room, start, draw)
            if start is None or relative is None:
                continue
            intrinsics = _lens(rng, shape)
            before = _shoot(renderer, start, intrinsics, shape)
            yield Pair(before, _shoot(renderer, start @ relative, intrinsics, shape), relative)


def _anchor(room: Room, index: int) -> Floats | None:
    try:
        return anchor_pose(room, index)
    except ValueError:
        return None


def _somewhere(room: Room, start: Floats, draw: random.Random) -> Floats | None:
    """Return where one or two actions lead without coming too close to anything; None where none are found."""
    for _ in range(_TRIES):
        relative = integrate([_action(draw) for _ in range(draw.randint(1, 2))])[-1]
        end = (start @ relative)[:3, 3]
        if room.clearance(end[0], end[2]) >= _CLEARANCE_M:
            return np.asarray(relative)
    return None


def _action(draw: random.Random) -> Action:
    primitive = draw.choice(list(Primitive))
    return Action(primitive, float(draw.randint(10, 50)) if primitive.is_turn else draw.randint(2, 12) / 10)


def _lens(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """K of the renderer's own lens or, as often, of another; the angle is that of the long side."""
    height, width = shape
    long_deg = _RENDERER_FOV_DEG if rng.random() < 0.5 else rng.uniform(*_FOV_DEG)
    share = width / max(shape)
    horizontal = 2 * np.degrees(np.arctan(share * np.tan(np.radians(long_deg) / 2)))
    return intrinsics_from_fov(float(horizontal), width, height)


def _tilt(rng: np.random.Generator) -> Floats:
    """A small pitch and roll: photographs are seldom level."""
    pitch, roll = np.radians(rng.normal(0, (_TILT_DEG, _ROLL_DEG)))
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = about_x @ about_z
    return pose


def _shoot(renderer: SceneRenderer, c2w: Floats, intrinsics: Floats, shape: tuple[int, int]) -> Shot:
    height, width = shape
    return Shot(renderer.render(c2w, intrinsics, width, height), intrinsics, c2w)
