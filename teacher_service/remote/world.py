"""The world port, answered by a worker process."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, NoReturn, Self

import grpc
import numpy as np

from teacher_service.paths import Waypoint
from teacher_service.remote.launch import Launch
from teacher_service.remote.process import WorkerProcess
from teacher_service.worlds.base import ImagineSpec, Photo
from world2vlm import convert, rpc
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError, OverloadedError, UnavailableError
from world2vlm.images import encode_png
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc
from world2vlm.worlds import WorldInfo

_log = logging.getLogger(__name__)
_POLL_S = 0.05


class RemoteWorld:
    """Imagines in another process, one path at a time.

    Args:
        info: what the world says about itself.
        worker: its process.
        request_seconds: that one path may take, and the wait for the one before it.
    """

    def __init__(self, info: WorldInfo, worker: WorkerProcess, request_seconds: float) -> None:
        self.info = info
        self.worker = worker
        self._seconds = request_seconds
        self._turn = threading.Lock()

    @classmethod
    def over(cls, launch: Launch, info: WorldInfo) -> Self:
        """Make the world of a worker program whose environment is there."""
        worker = WorkerProcess(launch, info)
        if launch.options.at_once:
            worker.start()
        return cls(info, worker, launch.options.request_seconds)

    def close(self) -> None:
        """End the world's process."""
        self.worker.close()

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a path from a photo; see `World.imagine`.

        Raises:
            NotFoundError: the world's environment lacks something; says how to make it.
            OverloadedError: another path takes too long.
            UnavailableError: the process can't be started, or ended meanwhile; it is started again.
        """
        photo = spec.anchor
        if not isinstance(photo, Photo):
            raise InvalidInputError(f"the world {self.info.name!r} takes photos, not scenes")
        stopped = threading.Event()

        def is_cancelled() -> bool:
            if not stopped.is_set() and spec.is_cancelled():
                stopped.set()
            return stopped.is_set()

        arrived: SimpleQueue[Frame | Exception | None] = SimpleQueue()
        # A thread of its own, so that whoever reads slowly keeps the world from nobody.
        heard = replace(spec, is_cancelled=is_cancelled)
        threading.Thread(target=self._fetch, args=(photo, heard, arrived.put), name="fetching", daemon=True).start()
        try:
            while (item := arrived.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                if is_cancelled():
                    return
                yield item
        finally:
            stopped.set()

    def _fetch(self, photo: Photo, spec: ImagineSpec, put: Callable[[Frame | Exception | None], None]) -> None:
        """Put the frames of a path, or the error that ended them, and None."""
        try:
            with self._my_turn(spec.is_cancelled) as is_mine:
                if is_mine and (address := self.worker.wait(spec.is_cancelled)):
                    for frame in self._stream(address, _request(photo, spec), spec):
                        put(frame)
        except Exception as error:
            put(error)
        put(None)

    @contextmanager
    def _my_turn(self, is_cancelled: Callable[[], bool]) -> Iterator[bool]:
        deadline = time.monotonic() + self._seconds
        while not self._turn.acquire(timeout=_POLL_S):
            if is_cancelled():
                yield False
                return
            if time.monotonic() > deadline:
                raise OverloadedError(f"the world {self.info.name!r} is still busy; try again later", 1.0)
        try:
            yield True
        finally:
            self._turn.release()

    def _stream(self, address: str, request: teacher_pb2.ImagineRequest, spec: ImagineSpec) -> Iterator[Frame]:
        with rpc.channel(address) as channel:
            stub: Any = teacher_pb2_grpc.TeacherServiceStub(channel)  # type: ignore[no-untyped-call]
            call = stub.Imagine(request, timeout=self._seconds)
            with _cancelling(call, spec.is_cancelled):
                try:
                    yield from self._frames(call, spec.path)
                except grpc.RpcError as error:
                    if spec.is_cancelled():
                        return
                    self._raise(error, address)
        self.worker.answered()

    def _frames(self, call: Iterator[teacher_pb2.ImagineResponse], path: tuple[Waypoint, ...]) -> Iterator[Frame]:
        last: tuple[Waypoint, Frame] | None = None
        received = 0
        for waypoint, message in zip(path, call, strict=False):
            received += 1
            frame = _with_actions(convert.frame_from_proto(message.frame), waypoint, last)
            last = waypoint, frame
            yield frame
        received += sum(1 for _ in call)
        if received != len(path):
            raise UnavailableError(f"the world {self.info.name!r} sent {received} frames for {len(path)} poses")

    def _raise(self, error: grpc.RpcError, address: str) -> NoReturn:
        """Raise what a failed call means; what gRPC itself says about the connection stays inside."""
        call: Any = error
        if call.code() is grpc.StatusCode.UNAVAILABLE and "error-code" not in dict(call.trailing_metadata() or ()):
            self.worker.suspect(address)
            _log.error("%s: %s", self.info.name, call.details())
            raise UnavailableError(
                f"the world {self.info.name!r} ended while it imagined and is started again; try again"
            ) from error
        if call.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
            _log.error("%s failed; its output ends with:\n%s", self.info.name, self.worker.tail)
        rpc.raise_domain_error(error)


def _request(photo: Photo, spec: ImagineSpec) -> teacher_pb2.ImagineRequest:
    height, width = photo.pixels.shape[:2]
    anchor = teacher_pb2.PhotoAnchor(
        image=spatial_pb2.Image(data=encode_png(photo.pixels)),
        intrinsics=convert.intrinsics_to_proto(photo.intrinsics, (width, height)),
    )
    poses = teacher_pb2.Poses(poses=[convert.pose_to_proto(waypoint.c2w) for waypoint in spec.path[1:]])
    return teacher_pb2.ImagineRequest(photo=anchor, poses=poses, seed=spec.seed)


def _with_actions(frame: Frame, waypoint: Waypoint, last: tuple[Waypoint, Frame] | None) -> Frame:
    """Add what the path says about a frame; an action that the world snapped gets the magnitude that it really had."""
    actions = waypoint.actions_step
    if last is not None and len(actions) == 1:
        used = np.linalg.inv(last[1].c2w) @ frame.c2w
        if not np.allclose(used, np.linalg.inv(last[0].c2w) @ waypoint.c2w, atol=1e-9):
            actions = _measure(actions[0], used)
    return replace(frame, actions_step=actions, key_frame=waypoint.key_frame)


def _measure(action: Action, relative: Floats) -> tuple[Action, ...]:
    if action.primitive.is_turn:
        magnitude = abs(float(np.degrees(np.arctan2(relative[0, 2], relative[2, 2]))))
    else:
        magnitude = float(np.linalg.norm(relative[:3, 3]))
    return (replace(action, magnitude=round(magnitude, 9)),) if magnitude > 1e-9 else ()


@contextmanager
def _cancelling(call: Any, is_cancelled: Callable[[], bool]) -> Iterator[None]:
    """Cancel a call as soon as `is_cancelled` says so, and in any case when this is left."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            if is_cancelled():
                call.cancel()
                return

    threading.Thread(target=watch, name="cancelling", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        call.cancel()
