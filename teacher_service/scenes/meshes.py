"""Triangle meshes from primitive parts, with a flat material on every face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import trimesh

Floats = npt.NDArray[np.float32]


class Pattern(IntEnum):
    """What a face's texture looks like; see `teacher_service.scenes.shading`."""

    PLAIN = 0
    CHECKER = 1
    STRIPES = 2
    PLANKS = 3
    BRICKS = 4
    SPECKLE = 5


@dataclass(frozen=True)
class Part:
    """One primitive of a piece of furniture, in the furniture's own frame.

    `centre` is (x right, height above the floor, z back) in metres, and the furniture's front looks towards -z.
    `taper` is the width at the top over the width at the bottom; `turn` is (about x, about y, about z) in degrees.
    """

    shape: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    tint: str = "main"
    taper: float = 1.0
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pattern: Pattern = Pattern.PLAIN
    cell: float = 0.1


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, y down, metres.

    `vertices` (V,3) float32; `faces` (F,3) int32; outward unit `normals` (F,3); `colour` and `accent` (F,3) RGB in
    [0,1]; `pattern` (F,) uint8; `axes` (F,2,3) tangents divided by the size of a texture cell; `instance` (F,) uint8.
    """

    vertices: Floats
    faces: npt.NDArray[np.int32]
    normals: Floats
    colour: Floats
    accent: Floats
    pattern: npt.NDArray[np.uint8]
    axes: Floats
    instance: npt.NDArray[np.uint8]

    def placed(self, yaw: float, x: float, y: float, z: float, instance: int) -> Mesh:
        """Return the mesh turned by `yaw` radians to the right about the vertical, moved, and owned by `instance`."""
        c, s = np.cos(yaw), np.sin(yaw)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=np.float32)
        return Mesh(
            vertices=self.vertices @ rotation.T + np.array([x, y, z], dtype=np.float32),
            faces=self.faces,
            normals=self.normals @ rotation.T,
            colour=self.colour,
            accent=self.accent,
            pattern=self.pattern,
            axes=self.axes @ rotation.T,
            instance=np.full(len(self.faces), instance, dtype=np.uint8),
        )


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """Concatenate meshes into one."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes[:-1]])
    return Mesh(
        vertices=np.concatenate([m.vertices for m in meshes]),
        faces=np.concatenate([m.faces + np.int32(start) for m, start in zip(meshes, starts, strict=True)]),
        normals=np.concatenate([m.normals for m in meshes]),
        colour=np.concatenate([m.colour for m in meshes]),
        accent=np.concatenate([m.accent for m in meshes]),
        pattern=np.concatenate([m.pattern for m in meshes]),
        axes=np.concatenate([m.axes for m in meshes]),
        instance=np.concatenate([m.instance for m in meshes]),
    )


def surface(
    vertices: Floats,
    faces: npt.NDArray[np.int32],
    colour: Floats,
    accent: Floats | None = None,
    pattern: Pattern = Pattern.PLAIN,
    cell: float = 1.0,
) -> Mesh:
    """Build a mesh of one material; faces wind counter-clockwise as seen from outside."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    count = len(faces)
    return Mesh(
        vertices=vertices,
        faces=faces,
        normals=normals,
        colour=np.tile(colour, (count, 1)),
        accent=np.tile(colour if accent is None else accent, (count, 1)),
        pattern=np.full(count, pattern, dtype=np.uint8),
        axes=_tangents(normals) / np.float32(cell),
        instance=np.zeros(count, dtype=np.uint8),
    )


def assemble(parts: Sequence[Part], palette: Mapping[str, Floats]) -> Mesh:
    """Turn parts into one mesh whose tints come from `palette`; patterns alternate a tint with a darker version."""
    meshes = []
    for part in parts:
        vertices, faces = _unit(part.shape)
        if part.taper != 1.0:
            # The unit shapes span [-0.5, 0.5] with y down, so y = 0.5 is the bottom.
            across = part.taper + (1.0 - part.taper) * (vertices[:, 1:2] + 0.5)
            vertices = vertices * np.concatenate([across, np.ones_like(across), across], axis=1)
        vertices = vertices * np.array(part.size, dtype=np.float32)
        if part.turn != (0.0, 0.0, 0.0):
            vertices = vertices @ _rotation(part.turn).T
        x, height, z = part.centre
        vertices = (vertices + np.array([x, -height, z])).astype(np.float32)
        colour = palette[part.tint]
        meshes.append(surface(vertices, faces, colour, colour * np.float32(0.72), part.pattern, part.cell))
    return merge(meshes)


def _tangents(normals: Floats) -> Floats:
    """Return two unit tangents (F,2,3) per face: the second runs down a wall, or along z on a floor."""
    flat = np.abs(normals[:, 1:2]) > 0.7
    down = np.where(flat, np.array([0, 0, 1]), np.array([0, 1, 0]))
    side = np.cross(normals, down)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([side, np.cross(side, normals)], axis=1).astype(np.float32)


def _rotation(turn: tuple[float, float, float]) -> Floats:
    """Return the (3,3) rotation about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix: Floats = (about_z @ about_y @ about_x).astype(np.float32)
    return matrix


@lru_cache(maxsize=8)
def _unit(shape: str) -> tuple[Floats, npt.NDArray[np.int32]]:
    """Return vertices and faces of a primitive of size 1 x 1 x 1 centred on the origin, its axis along y."""
    if shape == "box":
        mesh = trimesh.creation.box((1.0, 1.0, 1.0))
    elif shape == "cylinder":
        mesh = trimesh.creation.cylinder(radius=0.5, height=1.0, sections=16)
        mesh.vertices = mesh.vertices[:, [1, 2, 0]]  # from an axis along z to one along y
    elif shape == "sphere":
        mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    elif shape == "leaf":
        mesh = trimesh.creation.icosphere(subdivisions=1, radius=0.5)
    else:
        raise ValueError(f"unknown shape {shape!r}: expected box, cylinder, sphere or leaf")
    return mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
