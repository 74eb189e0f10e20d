"""Render a room from any camera by ray casting: colour, metric depth and instance ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from teacher_service.scenes.meshes import Floats
from teacher_service.scenes.room import Room, SceneObject
from teacher_service.scenes.shading import Shader


@dataclass(frozen=True)
class View:
    """What one camera sees.

    `rgb` (H,W,3) uint8; `depth` (H,W) float32, metres along the camera's z, inf where a ray leaves the room;
    `instances` (H,W) uint8, the object's id or 0 for the room's shell.
    """

    rgb: npt.NDArray[np.uint8]
    depth: Floats
    instances: npt.NDArray[np.uint8]


class SceneRenderer:
    """Ray-casts one room on the CPU. Not for concurrent use from several threads."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._shader = Shader(room)
        self._key: tuple[bytes, int, int] = (b"", 0, 0)
        self._rays: Floats = np.zeros((0, 3), dtype=np.float32)

    def render(self, c2w: npt.NDArray[np.float64], K: npt.NDArray[np.float64], width: int, height: int) -> View:
        """Render one view.

        Args:
            c2w: (4,4) camera to room, OpenCV axes (x right, y down, z forward), metres.
            K: (3,3) intrinsics in pixels; pixel (column i, row j) has its centre at (i + 0.5, j + 0.5).
            width: columns.
            height: rows.

        Returns:
            The view from the camera's position.
        """
        rays = self._camera_rays(K, width, height)
        directions = rays @ c2w[:3, :3].astype(np.float32).T
        origin = c2w[:3, 3].astype(np.float32)
        hits = self._room.caster.run(np.broadcast_to(origin, rays.shape).copy(), directions, output=1)
        # The rays have z = 1 in the camera, so the distance along one, in units of its length, is the depth.
        faces, depth = hits["primID"], hits["tfar"]
        hit = faces >= 0
        if hit.all():
            rgb, instances = self._colours(faces, directions, origin, depth, float(K[0, 0]))
        else:
            rgb, instances = np.zeros((len(rays), 3), np.uint8), np.zeros(len(rays), np.uint8)
            depth = np.where(hit, depth, np.float32(np.inf))
            if hit.any():
                rgb[hit], instances[hit] = self._colours(
                    faces[hit], directions[hit], origin, depth[hit], float(K[0, 0])
                )
        return View(rgb.reshape(height, width, 3), depth.reshape(height, width), instances.reshape(height, width))

    def _colours(
        self, faces: npt.NDArray[np.int32], directions: Floats, origin: Floats, depth: Floats, focal: float
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        points = origin + depth[:, None] * directions
        normals = self._room.mesh.normals[faces]
        slant = np.abs(np.einsum("ij,ij->i", normals, directions))
        footprint = depth / (np.float32(focal) * np.maximum(slant, np.float32(0.05)))
        return self._shader.shade(faces, points, footprint), self._room.mesh.instance[faces]

    def _camera_rays(self, K: npt.NDArray[np.float64], width: int, height: int) -> Floats:
        key = (np.asarray(K, dtype=np.float64).tobytes(), width, height)
        if key != self._key:
            x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
            pixels = np.stack([x.ravel(), y.ravel(), np.ones(width * height)])
            self._key, self._rays = key, np.linalg.solve(K, pixels).T.astype(np.float32)
        return self._rays


def object_boxes(view: View, room: Room) -> list[tuple[SceneObject, tuple[int, int, int, int], float]]:
    """Return what is visible of every object in a view, in the order of the ids.

    Returns:
        (object, (x1, y1, x2, y2), area): the box around its visible pixels' outer edges in thousandths of the width
        and height, and the fraction of the image's pixels that are its own. Objects out of view are left out.
    """
    height, width = view.instances.shape
    found = []
    for item in room.objects:
        mask = view.instances == item.instance_id
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            x1, x2 = (round(float(edge) / width * 1000) for edge in (columns[0], columns[-1] + 1))
            y1, y2 = (round(float(edge) / height * 1000) for edge in (rows[0], rows[-1] + 1))
            found.append((item, (x1, y1, x2, y2), float(mask.mean())))
    return found
