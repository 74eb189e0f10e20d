"""A synchronous client of the teacher service."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from world2vlm import convert, rpc
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import DataCorruptedError
from world2vlm.images import decode_image
from world2vlm.tls import ClientTls
from world2vlm.v1 import spatial_pb2, teacher_pb2, teacher_pb2_grpc
from world2vlm.worlds import WorldInfo

# Actions, or poses (N, 4, 4) c2w relative to the anchor camera.
Path3D = Sequence[Action] | Floats


class TeacherClient:
    """Asks a teacher for imagined frames. Every call raises the errors of `world2vlm.errors`.

    Args:
        url: `host:port`.
        tls: what to trust and to show; None = no TLS.
        timeout: seconds that a call may take.
    """

    def __init__(self, url: str, tls: ClientTls | None = None, timeout: float = 300.0) -> None:
        self._channel = rpc.channel(url, tls)
        self._stub: Any = teacher_pb2_grpc.TeacherServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def describe(self) -> list[WorldInfo]:
        """Return what the teacher's worlds are, can do, and may be used for."""
        try:
            reply = self._stub.DescribeTeacher(teacher_pb2.DescribeTeacherRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            rpc.raise_domain_error(error)
        return [convert.world_from_proto(world) for world in reply.worlds]

    def imagine_scene(
        self,
        scene: int,
        anchor: int,
        path: Path3D,
        *,
        world: str = "",
        seed: int = 0,
        width: int = 0,
        height: int = 0,
        key_frames_only: bool = False,
        with_instances: bool = False,
        keep_rejected: bool = False,
    ) -> list[Frame]:
        """Imagine a path through a procedural scene.

        Args:
            scene: the scene's seed.
            anchor: which of its anchor poses.
            path: actions, or poses (N, 4, 4) c2w relative to the anchor camera.
            world: the world's name; empty = the teacher's default for scenes.
            seed: of whatever the world does at random.
            width: of the frames in pixels, 16 to 512; 0 = 128.
            height: likewise.
            key_frames_only: leave out the steps between the ends of the actions.
            with_instances: also send instance maps.
            keep_rejected: also send frames that a gate fails, with its verdict among their `gates`.

        Returns:
            The frames in order, the anchor's own view first.

        Raises:
            GateRejectedError: a gate rejected the trajectory.
            World2VLMError: any other error of the catalogue.
        """
        request = teacher_pb2.ImagineRequest(
            world=world,
            scene=teacher_pb2.SceneAnchor(scene_seed=scene, anchor_index=anchor),
            seed=seed,
            width=width,
            height=height,
            key_frames_only=key_frames_only,
            with_instances=with_instances,
            keep_rejected=keep_rejected,
        )
        return self._imagine(request, path)

    def imagine_photo(
        self,
        image: bytes,
        path: Path3D,
        *,
        depth: NDArray[np.float32] | None = None,
        intrinsics: Floats | None = None,
        world: str = "",
        seed: int = 0,
        key_frames_only: bool = False,
        keep_rejected: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Frame]:
        """Imagine a path that starts at a photo's camera.

        Args:
            image: the encoded photo.
            path: actions, or poses (N, 4, 4) c2w relative to the photo's camera.
            depth: metres along z, (height, width) of the photo; 0 or non-finite = unknown.
            intrinsics: K, (3, 3) in the photo's pixels; None assumes a horizontal field of view of 54 degrees.
            world: the world's name; empty = the teacher's default for photos.
            seed: of whatever the world does at random.
            key_frames_only: leave out the steps between the ends of the actions.
            keep_rejected: also send frames that a gate fails, with its verdict among their `gates`.
            on_progress: told how many of how many steps are done, frames or steps of the world's own.

        Returns:
            The frames in order, the photo itself first.

        Raises:
            GateRejectedError: a gate rejected the trajectory.
            World2VLMError: any other error of the catalogue.
        """
        size = decode_image(image).size
        photo = teacher_pb2.PhotoAnchor(
            image=spatial_pb2.Image(data=image),
            intrinsics=None if intrinsics is None else convert.intrinsics_to_proto(intrinsics, size),
            depth=b"" if depth is None else np.ascontiguousarray(depth, dtype="<f4").tobytes(),
        )
        request = teacher_pb2.ImagineRequest(
            world=world,
            photo=photo,
            seed=seed,
            key_frames_only=key_frames_only,
            keep_rejected=keep_rejected,
            with_progress=on_progress is not None,
        )
        return self._imagine(request, path, on_progress)

    def _imagine(
        self,
        request: teacher_pb2.ImagineRequest,
        path: Path3D,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Frame]:
        if isinstance(path, np.ndarray):
            request.poses.poses.extend(map(convert.pose_to_proto, path))
        else:
            request.actions.actions.extend(map(convert.action_to_proto, path))
        frames: list[teacher_pb2.Frame] = []
        try:
            for message in self._stub.Imagine(request, timeout=self._timeout):
                if message.HasField("frame"):
                    frames.append(message.frame)
                if on_progress is not None:
                    on_progress(*_progress(message))
        except grpc.RpcError as error:
            rpc.raise_domain_error(error)
        if not frames or len(frames) != frames[0].count:
            raise DataCorruptedError(f"the teacher ended the stream after {len(frames)} frames")
        return list(map(convert.frame_from_proto, frames))


def _progress(message: teacher_pb2.ImagineResponse) -> tuple[int, int]:
    if message.HasField("frame"):
        return message.frame.index + 1, message.frame.count
    return message.progress.done, message.progress.total
