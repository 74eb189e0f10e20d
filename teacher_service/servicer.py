"""Translates between `world2vlm.v1.TeacherService` and the teacher."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from teacher_service.paths import Waypoint, from_actions, from_poses
from teacher_service.service import Teacher
from teacher_service.streams import Streams
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint
from world2vlm import convert
from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.v1 import teacher_pb2, teacher_pb2_grpc

DEFAULT_SIZE = 128
PHOTO_FOV_DEG = 54.0

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Limits:
    """What one request may ask for: bytes and pixels of its photo, frames of its path."""

    image_bytes: int
    image_pixels: int
    frames: int


class TeacherServicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Answers `DescribeTeacher` and `Imagine`.

    Args:
        teacher: the worlds.
        streams: where trajectories are made.
        limits: what one request may ask for.
    """

    def __init__(self, teacher: Teacher, streams: Streams, limits: Limits) -> None:
        self._teacher = teacher
        self._streams = streams
        self._limits = limits

    async def DescribeTeacher(
        self, request: teacher_pb2.DescribeTeacherRequest, context: Context
    ) -> teacher_pb2.DescribeTeacherResponse:
        """Say what the worlds are."""
        worlds = map(convert.world_to_proto, self._teacher.describe())
        return teacher_pb2.DescribeTeacherResponse(worlds=worlds)

    async def Imagine(
        self, request: teacher_pb2.ImagineRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.ImagineResponse]:
        """Stream the frames of one trajectory."""
        async with aclosing(self._streams.run(lambda: self._responses(request))) as responses:
            async for response in responses:
                yield response

    def _responses(self, request: teacher_pb2.ImagineRequest) -> Iterator[teacher_pb2.ImagineResponse]:
        """Decode, imagine and encode: all of it off the event loop."""
        spec = ImagineSpec(
            anchor=self._anchor(request),
            path=_path(request, self._limits.frames),
            seed=request.seed,
            size=(request.width or DEFAULT_SIZE, request.height or DEFAULT_SIZE),
            with_instances=request.with_instances,
        )
        for index, imagined in enumerate(self._teacher.imagine(request.world, spec)):
            frame = convert.frame_to_proto(imagined.frame, index, len(spec.path), imagined.observed_png)
            yield teacher_pb2.ImagineResponse(frame=frame)

    def _anchor(self, request: teacher_pb2.ImagineRequest) -> Photo | ScenePoint:
        match request.WhichOneof("anchor"):
            case "scene":
                return ScenePoint(request.scene.scene_seed, request.scene.anchor_index)
            case "photo":
                return self._photo(request.photo)
            case _:
                raise InvalidInputError("the request has no anchor: send a photo or a scene")

    def _photo(self, message: teacher_pb2.PhotoAnchor) -> Photo:
        image = decode_image(message.image.data, self._limits.image_bytes, self._limits.image_pixels)
        return Photo(np.asarray(image), _intrinsics(message, image.size), _depth(message.depth, image.size))


def _path(request: teacher_pb2.ImagineRequest, max_frames: int) -> tuple[Waypoint, ...]:
    match request.WhichOneof("path"):
        case "actions":
            actions = convert.actions_from_proto(request.actions.actions)
            return from_actions(actions, request.key_frames_only, max_frames)
        case "poses":
            return from_poses([convert.pose_from_proto(pose) for pose in request.poses.poses], max_frames)
        case _:
            raise InvalidInputError("the request has no path: send actions or poses")


def _intrinsics(message: teacher_pb2.PhotoAnchor, size: tuple[int, int]) -> Floats:
    if not message.HasField("intrinsics"):
        return intrinsics_from_fov(PHOTO_FOV_DEG, *size)
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
