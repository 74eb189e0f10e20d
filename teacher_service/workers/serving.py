"""`world2vlm.v1.TeacherService` around one world in a process of its own: one path at a time."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import numpy as np
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from world2vlm import convert
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError, UnavailableError, World2VLMError
from world2vlm.images import decode_image, encode_png
from world2vlm.rpc.channels import LIMITS
from world2vlm.rpc.statuses import to_status
from world2vlm.v1 import teacher_pb2, teacher_pb2_grpc
from world2vlm.worlds import WorldInfo

_log = logging.getLogger(__name__)
_POLL_S = 0.05


class CancelledError(Exception):
    """Nobody waits for the frames any more."""


@dataclass(frozen=True)
class Asked:
    """What to imagine.

    Attributes:
        pixels: uint8 (height, width, 3), the photo.
        intrinsics: K, float64 (3, 3), in its pixels.
        poses: float64 (N, 4, 4) c2w in metres relative to the photo's camera; the first is the identity.
        seed: of whatever the world does at random.
    """

    pixels: NDArray[np.uint8]
    intrinsics: Floats
    poses: Floats
    seed: int


@dataclass(frozen=True)
class Shot:
    """One frame: its pixels, and the c2w and K that were really used; `imagined` is False for the photo itself."""

    pixels: NDArray[np.uint8]
    c2w: Floats
    intrinsics: Floats
    imagined: bool = True


class Backend(Protocol):
    """A loaded world."""

    def imagine(self, asked: Asked, cancelled: threading.Event) -> Iterator[Shot]:
        """Yield one shot for every pose, in order.

        Raises:
            CancelledError: `cancelled` was set; at most one step of the world's own after that.
            World2VLMError: the request can't be answered; its text goes to the caller.
        """
        ...


class Servicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Answers for one backend; requests wait for each other.

    Args:
        backend: the world.
        info: what it says about itself.
    """

    def __init__(self, backend: Backend, info: WorldInfo) -> None:
        self._backend = backend
        self._info = info
        self._turn = threading.Lock()

    def DescribeTeacher(
        self, request: teacher_pb2.DescribeTeacherRequest, context: grpc.ServicerContext
    ) -> teacher_pb2.DescribeTeacherResponse:
        """Say what the world is."""
        return teacher_pb2.DescribeTeacherResponse(worlds=[convert.world_to_proto(self._info)])

    def Imagine(
        self, request: teacher_pb2.ImagineRequest, context: grpc.ServicerContext
    ) -> Iterator[teacher_pb2.ImagineResponse]:
        """Stream the frames of one path."""
        cancelled = threading.Event()
        if not context.add_callback(cancelled.set):
            return
        start = time.monotonic()
        try:
            asked = read_request(request)
            with self._my_turn(cancelled):
                for index, shot in enumerate(self._backend.imagine(asked, cancelled)):
                    frame = convert.frame_to_proto(_frame(shot), index, len(asked.poses))
                    yield teacher_pb2.ImagineResponse(frame=frame)
            _log.info("imagined %d frames in %.1f s", len(asked.poses), time.monotonic() - start)
        except CancelledError:
            _log.info("cancelled after %.1f s", time.monotonic() - start)
        except Exception as error:
            _abort(context, error)

    @contextmanager
    def _my_turn(self, cancelled: threading.Event) -> Iterator[None]:
        while not self._turn.acquire(timeout=_POLL_S):
            if cancelled.is_set():
                raise CancelledError
        try:
            yield
        finally:
            self._turn.release()


def read_request(request: teacher_pb2.ImagineRequest) -> Asked:
    """Read what a teacher sends to a worker: a photo with its intrinsics, and poses.

    Raises:
        InvalidInputError: anything else.
    """
    if request.WhichOneof("anchor") != "photo" or not request.photo.HasField("intrinsics"):
        raise InvalidInputError("a world's worker needs a photo with its intrinsics")
    if request.WhichOneof("path") != "poses":
        raise InvalidInputError("a world's worker needs a path of poses")
    image = decode_image(request.photo.image.data)
    intrinsics, size = convert.intrinsics_from_proto(request.photo.intrinsics)
    if size != image.size:
        raise InvalidInputError(f"the intrinsics are of an image of {size} pixels, but the photo has {image.size}")
    poses = np.stack([np.eye(4), *map(convert.pose_from_proto, request.poses.poses)])
    return Asked(np.asarray(image), intrinsics, poses, request.seed)


def serve(backend: Backend, options: Mapping[str, Any], socket: str) -> None:
    """Serve a loaded world on a Unix socket, with gRPC health checks, until the process is ended.

    Args:
        backend: the world.
        options: `info` holds the fields of its `WorldInfo`.
        socket: the path of the socket.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Those who wait for their turn hold a thread, and so does a health check.
    server = grpc.server(ThreadPoolExecutor(8), options=LIMITS)
    teacher_pb2_grpc.add_TeacherServiceServicer_to_server(  # type: ignore[no-untyped-call]
        Servicer(backend, WorldInfo(**options["info"])), server
    )
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    _log.info("serving")
    server.wait_for_termination()


def _frame(shot: Shot) -> Frame:
    height, width = shot.pixels.shape[:2]
    # No measurement backs any pixel of what a generative model makes, however right it looks.
    observed_png = encode_png(np.zeros((height, width), np.uint8)) if shot.imagined else b""
    return Frame(encode_png(shot.pixels), shot.c2w, shot.intrinsics, (width, height), observed_png=observed_png)


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if type(error).__name__ == "OutOfMemoryError":  # torch's; not every world's worker has torch
        _log.error("out of memory", exc_info=error)
        error = UnavailableError("the GPU has not enough free memory for this request")
    if not isinstance(error, World2VLMError):
        _log.error("the world failed", exc_info=error)
        error = World2VLMError("the world failed; its process's log says why")
    status, trailers = to_status(error)
    context.set_trailing_metadata(trailers)
    context.abort(status, str(error))
    raise AssertionError("unreachable: abort raises")
