"""From a request to what is to be made: checked, with the digest of all that its frames are a function of."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher_service.jobs import Batch, Job, Plan
from teacher_service.paths import Waypoint, check_count, from_actions, from_poses
from teacher_service.service import Teacher
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint
from world2vlm import convert
from world2vlm.actions import format_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.lenses import DEFAULT_FOV_DEG
from world2vlm.v1 import teacher_pb2

DEFAULT_SIZE = 128
MIN_SIZE, MAX_SIZE = 16, 512


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: bytes and pixels of its photo, frames of its path."""

    image_bytes: int
    image_pixels: int
    frames: int


class Planner:
    """Reads `ImagineRequest`s, for whatever protocol they came by.

    Args:
        teacher: the worlds.
        limits: what one request may ask for.
    """

    def __init__(self, teacher: Teacher, limits: Limits) -> None:
        self._teacher = teacher
        self._limits = limits

    def plan(self, request: teacher_pb2.ImagineRequest) -> Plan:
        """What a request asks for; its items are `Frame`s as bytes.

        Raises:
            InvalidInputError: something in the request is wrong.
            NotFoundError: no such world.
        """
        path = _path(request, self._limits.frames)
        size = _size(request)
        kind = request.WhichOneof("anchor")
        if kind is None:
            raise InvalidInputError("the request has no anchor: send a photo or a scene")
        world = self._teacher.choose(request.world, kind)

        def spec(job: Job) -> ImagineSpec:
            return ImagineSpec(
                anchor=self._anchor(request),
                path=path,
                seed=request.seed,
                size=size,
                with_instances=request.with_instances,
                is_cancelled=job.is_cancelled,
                on_step=job.on_step,
            )

        def make(specs: Sequence[ImagineSpec]) -> list[Iterator[bytes]]:
            return list(map(_items, specs, self._teacher.imagine_many(world.name, specs)))

        def make_one(job: Job) -> Iterator[bytes]:
            yield from make([spec(job)])[0]

        made_by = self._teacher.identity(world.name)
        most, common = self._teacher.batching(world.name, path) if kind == "photo" else (1, "")
        batch = Batch(_batch_key(made_by, request.photo, common), most, spec, make) if most > 1 else None
        return Plan(_key(made_by, request, path, size), world.name, world.lanes, len(path), make_one, batch)

    def _anchor(self, request: teacher_pb2.ImagineRequest) -> Photo | ScenePoint:
        if request.WhichOneof("anchor") == "scene":
            return ScenePoint(request.scene.scene_seed, request.scene.anchor_index)
        message = request.photo
        image = decode_image(message.image.data, self._limits.image_bytes, self._limits.image_pixels)
        return Photo(np.asarray(image), _intrinsics(message, image.size), _depth(message.depth, image.size))


def _key(world: str, request: teacher_pb2.ImagineRequest, path: tuple[Waypoint, ...], size: tuple[int, int]) -> str:
    """The digest of all that frames are a function of: the world, the anchor, the path, the seed, what is to be sent.

    Not the path as it was asked for, but the waypoints: actions in one request may be poses in another, and each frame
    says which actions led to it.
    """
    digest = hashlib.sha256(f"{world}\n{request.seed} {size} {request.with_instances}\n".encode())
    for waypoint in path:
        digest.update(f"{format_actions(waypoint.actions_step)} {waypoint.key_frame}\n".encode())
        digest.update(np.ascontiguousarray(waypoint.c2w, dtype="<f8").tobytes())
    if request.WhichOneof("anchor") == "scene":
        digest.update(f"scene {request.scene.scene_seed} {request.scene.anchor_index}".encode())
    else:
        _add_photo(digest, request.photo)
    return digest.hexdigest()


def _batch_key(world: str, photo: teacher_pb2.PhotoAnchor, common: str) -> str:
    """The digest of what trajectories have in common that can be made at once."""
    digest = hashlib.sha256(f"{world}\n{common}\n".encode())
    _add_photo(digest, photo)
    return digest.hexdigest()


def _add_photo(digest: "hashlib._Hash", photo: teacher_pb2.PhotoAnchor) -> None:
    intrinsics = photo.intrinsics.SerializeToString(deterministic=True) if photo.HasField("intrinsics") else b""
    for part in (photo.image.data, intrinsics, photo.depth):
        digest.update(f"\n{len(part)} ".encode() + part)


def _items(spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[bytes]:
    for index, frame in enumerate(frames):
        yield convert.frame_to_proto(frame, index, len(spec.path)).SerializeToString(deterministic=True)


def _size(request: teacher_pb2.ImagineRequest) -> tuple[int, int]:
    size = (request.width or DEFAULT_SIZE, request.height or DEFAULT_SIZE)
    if not all(MIN_SIZE <= side <= MAX_SIZE for side in size):
        raise InvalidInputError(f"frames must be {MIN_SIZE} to {MAX_SIZE} pixels wide and high, not {size}")
    return size


def _path(request: teacher_pb2.ImagineRequest, max_frames: int) -> tuple[Waypoint, ...]:
    match request.WhichOneof("path"):
        case "actions":
            # Counted before anything is made of them: what a request says so often costs nothing here.
            check_count(1 + len(request.actions.actions), max_frames)
            actions = convert.actions_from_proto(request.actions.actions)
            return from_actions(actions, request.key_frames_only, max_frames)
        case "poses":
            check_count(1 + len(request.poses.poses), max_frames)
            return from_poses([convert.pose_from_proto(pose) for pose in request.poses.poses], max_frames)
        case _:
            raise InvalidInputError("the request has no path: send actions or poses")


def _intrinsics(message: teacher_pb2.PhotoAnchor, size: tuple[int, int]) -> Floats:
    if not message.HasField("intrinsics"):
        return intrinsics_from_fov(DEFAULT_FOV_DEG, *size)
    intrinsics, stated = convert.intrinsics_from_proto(message.intrinsics)
    if stated != size:
        raise InvalidInputError(f"the intrinsics are of an image of {stated} pixels, but the photo has {size}")
    return intrinsics


def _depth(data: bytes, size: tuple[int, int]) -> NDArray[np.float32] | None:
    width, height = size
    if not data:
        return None
    if len(data) != width * height * 4:
        raise InvalidInputError(
            f"depth must be float32 of {width} x {height} pixels, so {width * height * 4} bytes, not {len(data)}"
        )
    return np.frombuffer(data, dtype="<f4").reshape(height, width)
