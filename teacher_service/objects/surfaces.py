"""Where the things in a photo's frames are in space, and where another frame shows them."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from teacher_service.objects.detector import Corners, Detection
from teacher_service.worlds.warp import Relief
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats, check_intrinsics
from world2vlm.errors import InvalidInputError

# Pixels on the longer side of the depth map that hides things: boxes need no more, and it is cast for every frame.
_SIDE = 160
# Rays through a box, across and down.
_RAYS = 24
# A point is hidden where something lies nearer by more than this share of its distance.
_HIDDEN = 0.08
# Metres. Points nearer to the camera's plane than this project to nowhere.
_NEAREST = 0.05

Points = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)


class Surroundings:
    """What the anchor's camera saw, as a surface that other cameras look at.

    Args:
        depth: float32 (height, width), metres along z, 0 or non-finite = unknown; None = nothing is known: then the
            camera may only turn, and any depth will do.
        intrinsics: K of the depth map, float64 (3, 3), in its pixels.
        size: (width, height) of the anchor in pixels.
    """

    def __init__(self, depth: NDArray[np.float32] | None, intrinsics: Floats, size: tuple[int, int]) -> None:
        self._metric = depth is not None
        self._size = width, height = _fit(size)
        scale = np.diag([width / size[0], height / size[1], 1.0])
        self._intrinsics = scale @ check_intrinsics(intrinsics)
        coarse = np.ones((height, width), np.float32) if depth is None else _nearest(depth, width, height)
        if not (np.isfinite(coarse) & (coarse > 0)).any():
            raise InvalidInputError("the photo's depth is unknown at every pixel")
        self._relief = Relief(np.zeros((height, width, 3), np.uint8), coarse, self._intrinsics)

    def view(self, frame: Frame) -> "Viewpoint":
        """Look from a frame's camera.

        Raises:
            InvalidInputError: the camera moved, and the depth is not known.
        """
        if not self._metric and np.abs(frame.c2w[:3, 3]).max() > 1e-9:
            raise InvalidInputError(
                "objects can only be followed through a move where the photo's depth is known: send it, or only turn"
            )
        warped = self._relief.view(frame.c2w)
        depth = np.where(warped.seen, warped.depth, np.inf).astype(np.float32)
        return Viewpoint(frame, self._intrinsics, depth)


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A frame's camera among the surroundings.

    Attributes:
        frame: the frame; its pose, intrinsics and size are read.
        intrinsics: K of `depth`.
        depth: float32, metres along the frame's z as the anchor knows it; inf where the anchor did not see.
    """

    frame: Frame
    intrinsics: Floats
    depth: NDArray[np.float32]

    def surface(self, detection: Detection) -> Points:
        """Return points (N, 3) in the anchor's frame on what a detection's box shows.

        A box also shows what is behind and in front of its object. The object is taken to be the layer around the
        median depth, as thick to either side as half of the box's longer side is in space; a mask says it exactly.
        """
        x1, y1, x2, y2 = detection.box
        steps = (np.arange(_RAYS) + 0.5) / _RAYS
        u, v = (grid.ravel() for grid in np.meshgrid(x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)))
        if detection.mask is not None and (inside := _at(detection.mask, u, v)).any():
            u, v = u[inside], v[inside]
        k = self.frame.intrinsics
        rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], axis=1)
        z = self._depth_along(rays)
        middle = np.median(z)
        reach = middle * max((x2 - x1) / k[0, 0], (y2 - y1) / k[1, 1]) / 2
        layer = np.abs(z - middle) <= reach
        points: Points = (rays * z[:, None])[layer] @ self.frame.c2w[:3, :3].T + self.frame.c2w[:3, 3]
        return points

    def visible(self, points: Points) -> Points:
        """Return where the frame shows points (N, 3) of the anchor's frame: pixels (M, 2), those hidden left out."""
        camera = (points - self.frame.c2w[:3, 3]) @ self.frame.c2w[:3, :3]
        camera = camera[camera[:, 2] > _NEAREST]
        place = _project(self.frame.intrinsics, camera)
        inside = ((place >= 0) & (place < self.frame.size)).all(axis=1)
        coarse = _project(self.intrinsics, camera)
        nearest = _at(self.depth, coarse[:, 0], coarse[:, 1])
        outside = ((coarse < 0) | (coarse >= self.depth.shape[::-1])).any(axis=1)
        clear = outside | (camera[:, 2] <= nearest * (1 + _HIDDEN))
        shown: Points = place[inside & clear]
        return shown

    def _depth_along(self, rays: Points) -> Points:
        """Depth on each ray (N, 3); where the anchor did not see, that of the nearest place that it saw."""
        known = np.isfinite(self.depth)
        if not known.any():
            return np.ones(len(rays))
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        place = _project(self.intrinsics, rays)
        return _at(self.depth[tuple(nearest)], place[:, 0], place[:, 1]).astype(np.float64)


def extent(pixels: Points) -> Corners:
    """The box around pixels (N, 2), N at least 1."""
    (x1, y1), (x2, y2) = pixels.min(axis=0), pixels.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def _project(intrinsics: Floats, camera: Points) -> Points:
    return camera[:, :2] / camera[:, 2:] * intrinsics.diagonal()[:2] + intrinsics[:2, 2]


def _at(values: NDArray[T], u: Points, v: Points) -> NDArray[T]:
    """The values (height, width) at pixels, those outside taken from the border."""
    height, width = values.shape
    return np.asarray(values[np.clip(v, 0, height - 1).astype(int), np.clip(u, 0, width - 1).astype(int)])


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(size))
    return max(2, round(size[0] * scale)), max(2, round(size[1] * scale))


def _nearest(depth: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    # Single values, no means: across an edge a mean is the depth of nothing.
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(int)
    return np.asarray(depth[rows[:, None], columns])
