"""The frames of a trajectory as they are made, for protocols that tell of nothing else."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from teacher_service.jobs import Plan, Step
from teacher_service.streams import Streams
from world2vlm.errors import GateRejectedError
from world2vlm.v1 import teacher_pb2


async def frames_of(
    streams: Streams, plan: Callable[[], Plan], keep_rejected: bool
) -> AsyncGenerator[teacher_pb2.Frame, None]:
    """Yield the frames of a trajectory.

    Args:
        streams: where it is made.
        plan: says what to make; called in a thread.
        keep_rejected: whether frames that a gate fails are frames, too.

    Raises:
        GateRejectedError: a gate failed a frame, and such frames are not wanted.
        World2VLMError: see `Streams.run`.
    """
    async with aclosing(streams.run(plan)) as items:
        async for item in items:
            if not isinstance(item, Step):
                yield read_frame(item, keep_rejected)


def read_frame(item: bytes, keep_rejected: bool) -> teacher_pb2.Frame:
    """Read one frame as it was planned.

    Raises:
        GateRejectedError: a gate failed it, and such frames are not wanted.
    """
    frame = teacher_pb2.Frame.FromString(item)
    for verdict in frame.gates if not keep_rejected else ():
        if not verdict.passed:
            raise GateRejectedError(verdict.name, verdict.figure, verdict.reason)
    return frame
