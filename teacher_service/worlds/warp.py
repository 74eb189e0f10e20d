"""See a photo with depth from another camera: its depth map as a surface, ray-cast.

A surface has no cracks when the camera comes nearer, and its nearest layer wins by itself. Where neighbouring depths
jump, it is cut: what lies behind a cut was never seen, and stays a hole for `worlds.fill`.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray
from scipy import ndimage

from world2vlm.cameras import Floats, pixel_rays

# Neighbours whose inverse depths differ by more than this share, beyond their surface's own slope, lie on two surfaces.
_JUMP = 0.04

# Pixels. A ray from the photo's own camera would run exactly along the surface's edges and slip through.
_NUDGE = np.array([0.002, 0.001, 0.0])


@dataclass(frozen=True)
class Warped:
    """A photo seen from another camera.

    Attributes:
        rgb: uint8 (height, width, 3); 0 where `seen` is False.
        depth: float32 (height, width), metres along the new camera's z; 0 where `seen` is False.
        seen: bool (height, width), True where the photo shows what is there.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    seen: NDArray[np.bool_]


class Relief:
    """A photo as a surface in space. Several threads may look at once.

    Args:
        pixels: uint8 (height, width, 3).
        depth: float32 (height, width), metres along z; 0 or non-finite = unknown, taken from the nearest known pixel.
        intrinsics: K, float64 (3, 3), pixels.
    """

    def __init__(self, pixels: NDArray[np.uint8], depth: NDArray[np.float32], intrinsics: Floats) -> None:
        self._pixels = pixels.astype(np.float32)
        self._intrinsics = intrinsics
        height, width = depth.shape
        rays = pixel_rays(intrinsics, width, height)
        self._rays = (rays + _NUDGE / intrinsics[0, 0]).astype(np.float32)
        self._scene = EmbreeScene(robust=True)
        # The first rays build the scene's tree.
        self._lock = threading.Lock()
        vertices, faces, loose = _surface(_fill_unknown(depth), rays, intrinsics)
        TriangleMesh(self._scene, vertices, faces)
        # Row and column of each loose pixel; its two triangles come after those of the whole cells.
        self._loose = np.argwhere(loose).T
        self._first_loose = len(faces) - 2 * self._loose.shape[1]

    def view(self, c2w: Floats) -> Warped:
        """Look from `c2w`, float64 (4, 4) relative to the photo's camera, through the same intrinsics."""
        height, width = self._pixels.shape[:2]
        directions = self._rays.reshape(-1, 3) @ c2w[:3, :3].T.astype(np.float32)
        origin = c2w[:3, 3].astype(np.float32)
        hits = self._cast(np.tile(origin, (len(directions), 1)), directions)
        seen = hits["primID"] >= 0
        # The rays have z = 1 in their camera, so the distance along one, in units of its length, is the depth.
        distance = np.where(seen, hits["tfar"], 0).astype(np.float32)
        points = origin + distance[:, None] * directions
        # A point of the surface shows the colour at the place of the photo that it came from.
        with np.errstate(divide="ignore", invalid="ignore"):
            column = self._intrinsics[0, 0] * points[:, 0] / points[:, 2] + self._intrinsics[0, 2] - 0.5
            row = self._intrinsics[1, 1] * points[:, 1] / points[:, 2] + self._intrinsics[1, 2] - 0.5
        place = np.where(seen, np.stack([row, column]), 0)
        # A loose pixel shows its own colour, not a mixture with its neighbour on another surface.
        loose = hits["primID"] >= self._first_loose
        place[:, loose] = self._loose[:, (hits["primID"][loose] - self._first_loose) // 2]
        rgb = np.stack([_sample(self._pixels[..., channel], place) for channel in range(3)], axis=-1)
        return Warped(
            rgb=(np.rint(rgb) * seen[:, None]).astype(np.uint8).reshape(height, width, 3),
            depth=distance.reshape(height, width),
            seen=seen.reshape(height, width),
        )

    def distance(self, origin: Floats, direction: Floats) -> float:
        """Metres from `origin` (3,) to the surface along the unit vector `direction` (3,); inf where it meets none."""
        hits = self._cast(origin[None].astype(np.float32), direction[None].astype(np.float32))
        return float(hits["tfar"][0]) if hits["primID"][0] >= 0 else float("inf")

    def _cast(self, origins: NDArray[np.float32], directions: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        with self._lock:
            hits: dict[str, NDArray[Any]] = self._scene.run(origins, directions, output=1)
        return hits


def _sample(channel: NDArray[np.float32], place: Floats) -> NDArray[np.float32]:
    return np.asarray(ndimage.map_coordinates(channel, place, order=1, mode="nearest"))


def _fill_unknown(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give unknown pixels the depth of the nearest known one."""
    known = np.isfinite(depth) & (depth > 0)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.asarray(depth[tuple(nearest)])


def _surface(
    depth: NDArray[np.float32], rays: NDArray[np.float32], intrinsics: Floats
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.bool_]]:
    """Return vertices (N, 3) in metres, triangles (M, 3), and which pixels (height, width) are loose.

    The triangles are the grid of pixels where it is not cut, then two for each loose pixel, in order.
    """
    height, width = depth.shape
    vertices = depth[..., None] * rays
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    right, down = _joined(depth, 1), _joined(depth, 0)
    # A cell of four pixels is whole where all of its sides are.
    whole = right[:-1] & right[1:] & down[:, :-1] & down[:, 1:]
    a, b, c, d = (part[whole] for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    cells = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    # Pixels at a cut or at the border would lose the half of themselves that lies outside of whole cells.
    corners = np.pad(whole, 1)
    loose = ~(corners[:-1, :-1] & corners[:-1, 1:] & corners[1:, :-1] & corners[1:, 1:])
    squares, faces = _squares(depth[loose], rays[loose], intrinsics, first=height * width)
    return np.concatenate([vertices.reshape(-1, 3), squares]), np.concatenate([cells, faces]), loose


def _joined(depth: NDArray[np.float32], axis: int) -> NDArray[np.bool_]:
    """Tell which neighbours along `axis` lie on one surface: planes are linear in inverse depth, so bends show."""
    inverse = 1 / np.moveaxis(depth, axis, 0)
    step = np.diff(inverse, axis=0)
    slope = np.abs(np.pad(step, ((1, 1), (0, 0)), mode="edge"))
    expected = np.minimum(slope[:-2], slope[2:])
    excess = np.abs(step) - expected
    return np.moveaxis(excess <= _JUMP * np.minimum(inverse[:-1], inverse[1:]), 0, axis)


def _squares(
    depth: NDArray[np.float32], rays: NDArray[np.float32], intrinsics: Floats, first: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return pixels as squares that face the camera: vertices (4 N, 3), triangles (2 N, 3) counted from `first`."""
    half = np.array([0.5 / intrinsics[0, 0], 0.5 / intrinsics[1, 1], 0], dtype=np.float32)
    signs = np.array([[-1, -1, 0], [1, -1, 0], [-1, 1, 0], [1, 1, 0]], dtype=np.float32)
    vertices = depth[:, None, None] * (rays[:, None] + half * signs)
    start = first + 4 * np.arange(len(depth), dtype=np.int32)[:, None, None]
    faces = start + np.array([[0, 1, 2], [1, 3, 2]], dtype=np.int32)
    return vertices.reshape(-1, 3), faces.reshape(-1, 3)
