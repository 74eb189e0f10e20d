"""Translates between `world2vlm.v1.TeacherService` and the teacher."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from teacher_service.frames import read_frame
from teacher_service.jobs import Step
from teacher_service.planning import Planner
from teacher_service.service import Teacher
from teacher_service.streams import Streams
from world2vlm import convert
from world2vlm.v1 import teacher_pb2, teacher_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TeacherServicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Answers `DescribeTeacher` and `Imagine`.

    Args:
        teacher: the worlds.
        streams: where trajectories are made.
        planner: reads requests.
    """

    def __init__(self, teacher: Teacher, streams: Streams, planner: Planner) -> None:
        self._teacher = teacher
        self._streams = streams
        self._planner = planner

    async def DescribeTeacher(
        self, request: teacher_pb2.DescribeTeacherRequest, context: Context
    ) -> teacher_pb2.DescribeTeacherResponse:
        """Say what the worlds are."""
        worlds = map(convert.world_to_proto, self._teacher.describe())
        return teacher_pb2.DescribeTeacherResponse(worlds=worlds)

    async def Imagine(
        self, request: teacher_pb2.ImagineRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.ImagineResponse]:
        """Stream the frames of one trajectory. gRPC cancels this when its caller leaves or its deadline passes."""
        async with aclosing(self._streams.run(partial(self._planner.plan, request))) as items:
            async for item in items:
                if not isinstance(item, Step):
                    yield teacher_pb2.ImagineResponse(frame=read_frame(item, request.keep_rejected))
                elif request.with_progress:
                    progress = teacher_pb2.Progress(done=item.done, total=item.total)
                    yield teacher_pb2.ImagineResponse(progress=progress)
