"""What a video model needs of a request: the photo cut to its size, and a path of small steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

from teacher_service.paths import Waypoint
from teacher_service.worlds.base import Photo
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError

# Pixels on a side; a smaller cut of a photo shows nothing that a model could go on from.
_MIN_CUT = 8


@dataclass(frozen=True)
class Track:
    """A path as a video model takes it.

    Attributes:
        poses: float64 (F, 4, 4) c2w, relative to the anchor camera.
        at: for each waypoint, which of the poses is its own.
    """

    poses: Floats
    at: tuple[int, ...]


def fit_photo(photo: Photo, width: int, height: int) -> Photo:
    """Cut the middle of a photo to the shape `width` x `height` and scale it to that size, its K and depth with it.

    The cut comes first, so a photo of an extreme shape costs no more memory than another.

    Raises:
        InvalidInputError: next to nothing of the photo has that shape.
    """
    rows, columns = photo.pixels.shape[:2]
    cut = min(columns / width, rows / height)
    wide, high = cut * width, cut * height
    if min(wide, high) < _MIN_CUT:
        raise InvalidInputError(
            f"of the photo's {columns} x {rows} pixels only {wide:.3g} x {high:.3g} have the shape {width} x {height}; "
            f"at least {_MIN_CUT} on each side are needed"
        )
    left, top = (columns - wide) / 2, (rows - high) / 2
    picture = Image.fromarray(photo.pixels).resize(
        (width, height), Image.Resampling.LANCZOS, box=(left, top, left + wide, top + high)
    )
    intrinsics = photo.intrinsics.copy()
    intrinsics[0, 2] -= left
    intrinsics[1, 2] -= top
    intrinsics[:2] /= cut
    depth = None if photo.depth is None else _cut_depth(photo.depth, left, top, cut, width, height)
    return Photo(np.asarray(picture), intrinsics, depth)


def lay_track(path: Sequence[Waypoint], stride: int, step_m: float, step_deg: float) -> Track:
    """Put poses between the waypoints, so that no step is large, and hold the last until the length is one that fits.

    Args:
        path: the waypoints.
        stride: the model makes `stride` k + 1 frames.
        step_m: how many metres the camera moves at most from one frame to the next.
        step_deg: how many degrees it turns at most.
    """
    poses, at = [path[0].c2w], [0]
    for before, after in pairwise(path):
        poses += _steps(before.c2w, after.c2w, step_m, step_deg)
        at.append(len(poses) - 1)
    poses += [poses[-1]] * (-(len(poses) - 1) % stride)
    return Track(np.stack(poses), tuple(at))


def _steps(start: Floats, end: Floats, step_m: float, step_deg: float) -> list[Floats]:
    """Return the poses after `start` up to `end` itself, equally far from each other."""
    turn = Rotation.from_matrix(start[:3, :3].T @ end[:3, :3]).magnitude()
    metres = float(np.linalg.norm(end[:3, 3] - start[:3, 3]))
    count = max(1, int(np.ceil(max(np.degrees(turn) / step_deg, metres / step_m) - 1e-9)))
    shares = np.arange(1, count) / count
    between = np.tile(np.eye(4), (count - 1, 1, 1))
    between[:, :3, :3] = Slerp([0, 1], Rotation.from_matrix(np.stack([start, end])[:, :3, :3]))(shares).as_matrix()
    between[:, :3, 3] = start[:3, 3] + shares[:, None] * (end[:3, 3] - start[:3, 3])
    return [*between, end]


def _cut_depth(
    depth: NDArray[np.float32], left: float, top: float, cut: float, width: int, height: int
) -> NDArray[np.float32]:
    """Take the nearest depth, not a mean: across an edge a mean is the depth of nothing."""
    rows = (top + cut * (np.arange(height) + 0.5)).astype(int)
    columns = (left + cut * (np.arange(width) + 0.5)).astype(int)
    return np.asarray(depth[rows[:, None], columns])
