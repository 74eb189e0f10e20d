"""The geometric world: a photo and its depth, seen from elsewhere; what the photo does not show is filled in."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teacher_service.gates import check_observed
from teacher_service.paths import Waypoint
from teacher_service.worlds.base import Imagined, ImagineSpec, Photo, source_digest
from teacher_service.worlds.fill import fill_holes
from teacher_service.worlds.warp import Relief
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

MAX_PIXELS = 1 << 20
_SOURCES = ("geometric.py", "warp.py", "fill.py")


class GeometricWorld:
    """Warps photos by their depth.

    Args:
        min_observed_share: the unobserved gate's share of a frame that the photo must back; 0 turns it off.
    """

    def __init__(self, min_observed_share: float = 0.3) -> None:
        self._min_observed_share = min_observed_share
        self.info = WorldInfo(
            name="geometric",
            description="A photo with metric depth as a surface, seen from elsewhere; holes are filled smoothly",
            metric=True,
            generative=True,
            takes_scenes=False,
            takes_photos=True,
            licence="Apache-2.0; frames keep the photo's own terms",
            outputs_may_train=True,
            digest=source_digest(Path(__file__).with_name(name) for name in _SOURCES),
        )

    def imagine(self, spec: ImagineSpec) -> Iterator[Imagined]:
        """Yield the frames of a path from a photo's camera; see `World.imagine`.

        Raises:
            InvalidInputError: the photo is over 1,048,576 pixels, or it has no depth and the path is not turns alone.
            GateRejectedError: `unobserved`: the path leads away from what the photo shows.
        """
        photo = spec.anchor
        if not isinstance(photo, Photo):
            raise InvalidInputError("the geometric world takes photos, not scenes")
        height, width = photo.pixels.shape[:2]
        if height * width > MAX_PIXELS:
            raise InvalidInputError(f"the photo has {width} x {height} pixels; scale it down to at most {MAX_PIXELS}")
        relief = Relief(photo.pixels, _depth(photo, spec.path), photo.intrinsics)
        for index, waypoint in enumerate(spec.path):
            yield self._frame(index, waypoint, photo, relief)

    def _frame(self, index: int, waypoint: Waypoint, photo: Photo, relief: Relief) -> Imagined:
        height, width = photo.pixels.shape[:2]
        if np.array_equal(waypoint.c2w, np.eye(4)):
            pixels, observed, observed_png = photo.pixels, 1.0, b""
        else:
            warped = relief.view(waypoint.c2w)
            observed = float(warped.seen.mean())
            check_observed(observed, self._min_observed_share, index)
            pixels = fill_holes(warped.rgb, warped.depth, warped.seen)
            observed_png = encode_png(warped.seen.astype(np.uint8) * 255)
        frame = Frame(
            png=encode_png(pixels),
            c2w=waypoint.c2w,
            intrinsics=photo.intrinsics,
            size=(width, height),
            actions_step=waypoint.actions_step,
            key_frame=waypoint.key_frame,
            scores={"observed_share": observed},
        )
        return Imagined(frame, observed_png)


def make(settings: TeacherSettings) -> GeometricWorld:
    """Make the world from the teacher's settings."""
    return GeometricWorld(settings.min_observed_share)


def _depth(photo: Photo, path: tuple[Waypoint, ...]) -> NDArray[np.float32]:
    """Return the photo's depth; any will do where the camera only turns, as nothing moves against anything else."""
    if photo.depth is None:
        if any(_moves(waypoint.c2w) for waypoint in path):
            raise InvalidInputError("the geometric world needs the photo's depth to move; without it, it can only turn")
        return np.ones(photo.pixels.shape[:2], dtype=np.float32)
    if not (np.isfinite(photo.depth) & (photo.depth > 0)).any():
        raise InvalidInputError("the photo's depth is unknown at every pixel")
    return photo.depth


def _moves(c2w: Floats) -> bool:
    return bool(np.abs(c2w[:3, 3]).max() > 1e-9)
