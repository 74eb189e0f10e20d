"""A furnished room: its objects, its mesh, its light, and how far a floor point is from anything."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from teacher_service.scenes.meshes import Floats, Mesh


@dataclass(frozen=True)
class SceneObject:
    """One piece of furniture.

    `instance_id` counts from 1. `x` and `z` are the centre of its footprint in the room's frame, `yaw` is in radians
    (positive turns right, 0 has its front looking towards -z), `size` is (width, height, depth) in its own axes, and
    `base` is how far its lowest point is above the floor, all in metres. `support` is the id of the object it stands
    on, or None.
    """

    instance_id: int
    category: str
    colour: str
    x: float
    z: float
    yaw: float
    size: tuple[float, float, float]
    base: float
    support: int | None = None

    def corners(self) -> npt.NDArray[np.float64]:
        """Return the footprint's corners, (4,2) floor coordinates (x, z)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        half = np.array([self.size[0], self.size[2]]) / 2
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners: npt.NDArray[np.float64] = np.array([self.x, self.z]) + (signs * half) @ np.array([[c, -s], [s, c]])
        return corners

    def distance(self, x: npt.ArrayLike, z: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the signed distance in metres from floor points to the footprint, negative inside."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        dx, dz = np.asarray(x, dtype=np.float64) - self.x, np.asarray(z, dtype=np.float64) - self.z
        across = np.abs(c * dx - s * dz) - self.size[0] / 2
        along = np.abs(s * dx + c * dz) - self.size[2] / 2
        outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
        return np.asarray(outside + np.minimum(np.maximum(across, along), 0))


@dataclass(frozen=True)
class Light:
    """How a room is lit: strengths are multipliers of albedo.

    `sun` is the unit vector towards the light; `lamp` is a point light's position in the room's frame.
    """

    ambient: float
    sun: tuple[float, float, float]
    sun_strength: float
    lamp: tuple[float, float, float]
    lamp_strength: float
    tint: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Room:
    """A closed, furnished room; see the package for its frame. Build one with `build_room`.

    `floor_light` (rows along z, columns along x, float32) dims the floor under furniture and along the walls.
    """

    seed: int
    width: float
    depth: float
    height: float
    objects: tuple[SceneObject, ...]
    mesh: Mesh
    light: Light
    floor_light: Floats

    def clearance(self, x: npt.ArrayLike, z: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return metres from floor points to the nearest wall or furniture footprint, negative inside one."""
        x, z = np.asarray(x, dtype=np.float64), np.asarray(z, dtype=np.float64)
        nearest: npt.NDArray[np.float64] = np.minimum(self.width / 2 - np.abs(x), self.depth / 2 - np.abs(z))
        for item in self.objects:
            nearest = np.minimum(nearest, item.distance(x, z))
        return nearest

    @cached_property
    def caster(self) -> EmbreeScene:
        """The Embree scene (one bounding volume hierarchy over the whole mesh), built on first use."""
        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, self.mesh.vertices, self.mesh.faces)
        return scene
