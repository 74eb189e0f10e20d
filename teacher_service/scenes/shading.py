"""Colour ray hits: procedural textures from the hit position, and the room's light."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from teacher_service.scenes.meshes import Floats, Pattern

if TYPE_CHECKING:
    from teacher_service.scenes.room import Room


class Shader:
    """Shades hits on one room's mesh; everything that depends on the face alone is computed once."""

    def __init__(self, room: Room) -> None:
        mesh, light = room.mesh, room.light
        self._room = room
        upward = -mesh.normals[:, 1]
        sun = np.maximum(mesh.normals @ np.array(light.sun, dtype=np.float32), 0)
        self._static = (light.ambient * (0.92 + 0.08 * upward) + light.sun_strength * sun).astype(np.float32)
        self._lamp = np.array(light.lamp, dtype=np.float32)
        self._tint = np.array(light.tint, dtype=np.float32)
        self._on_floor = (upward > 0.99) & (mesh.instance == 0)

    def shade(self, faces: npt.NDArray[np.int32], points: Floats, footprint: Floats) -> npt.NDArray[np.uint8]:
        """Return the colours of ray hits.

        Args:
            faces: (N,) int32, the face each ray hit.
            points: (N,3) float32, where, in the room's frame.
            footprint: (N,) float32, how many metres of the surface one pixel covers.

        Returns:
            RGB, (N,3) uint8.
        """
        mesh = self._room.mesh
        albedo = mesh.colour[faces]
        textured = np.flatnonzero(mesh.pattern[faces])
        if len(textured):
            owner = faces[textured]
            weight = _texture(mesh.pattern[owner], mesh.axes[owner], points[textured], footprint[textured])[:, None]
            albedo[textured] += weight * (mesh.accent[owner] - albedo[textured])
        to_lamp = self._lamp - points
        square = np.einsum("ij,ij->i", to_lamp, to_lamp)
        facing = np.maximum(np.einsum("ij,ij->i", to_lamp, mesh.normals[faces]), 0) / np.sqrt(square)
        light = self._static[faces] + self._room.light.lamp_strength * facing / (0.6 + 0.12 * square)
        floor = np.flatnonzero(self._on_floor[faces])
        light[floor] *= self._floor_light(points[floor])
        rgb: npt.NDArray[np.uint8] = np.clip(albedo * (light[:, None] * self._tint) * 255.0, 0, 255).astype(np.uint8)
        return rgb

    def _floor_light(self, points: Floats) -> Floats:
        room, grid = self._room, self._room.floor_light
        column = ((points[:, 0] / room.width + 0.5) * grid.shape[1]).astype(np.int32)
        row = ((points[:, 2] / room.depth + 0.5) * grid.shape[0]).astype(np.int32)
        found: Floats = grid[np.clip(row, 0, grid.shape[0] - 1), np.clip(column, 0, grid.shape[1] - 1)]
        return found


def _texture(pattern: npt.NDArray[np.uint8], axes: Floats, points: Floats, footprint: Floats) -> Floats:
    """Return how much of the accent colour (N,) each point has; a texture finer than the pixels fades to its mean."""
    u = np.einsum("ij,ij->i", axes[:, 0], points)
    v = np.einsum("ij,ij->i", axes[:, 1], points)
    weight = np.zeros(len(points), dtype=np.float32)
    for kind, function in _FUNCTIONS.items():
        chosen = np.flatnonzero(pattern == kind)
        if len(chosen):
            weight[chosen] = function(u[chosen], v[chosen])
    cells_per_pixel = footprint * np.sqrt(np.einsum("ij,ij->i", axes[:, 1], axes[:, 1]))
    fade = np.clip(1.6 - 2.0 * cells_per_pixel, 0, 1)
    faded: Floats = (0.4 + (weight - 0.4) * fade).astype(np.float32)
    return faded


def _hash(a: Floats, b: Floats) -> Floats:
    """Return a repeatable value in [0, 1) per pair of whole numbers."""
    mixed = a.astype(np.int32) * np.int32(73856093) ^ b.astype(np.int32) * np.int32(19349663)
    mixed = (mixed ^ (mixed >> 13)) * np.int32(1274126177)
    value: Floats = ((mixed >> 8) & 0xFF).astype(np.float32) / np.float32(256)
    return value


def _checker(u: Floats, v: Floats) -> Floats:
    accent: Floats = np.mod(np.floor(u) + np.floor(v), 2).astype(np.float32)
    return accent


def _stripes(u: Floats, v: Floats) -> Floats:
    return (np.mod(u, 1) < 0.5).astype(np.float32)


def _planks(u: Floats, v: Floats) -> Floats:
    row = np.floor(u)
    along = v / 6 + np.float32(0.37) * row
    tone = _hash(row, np.floor(along))
    seam = (np.mod(u, 1) < 0.07) | (np.mod(along, 1) < 0.015)
    return np.where(seam, np.float32(1.3), 0.8 * tone).astype(np.float32)


def _bricks(u: Floats, v: Floats) -> Floats:
    row = np.floor(v)
    along = u / 2 + 0.5 * np.mod(row, 2)
    mortar = (np.mod(v, 1) < 0.13) | (np.mod(along, 1) < 0.06)
    return np.where(mortar, np.float32(-0.5), 0.5 + 0.7 * _hash(row, np.floor(along))).astype(np.float32)


def _speckle(u: Floats, v: Floats) -> Floats:
    coarse = _hash(np.floor(u), np.floor(v))
    return (0.25 + 0.3 * coarse + 0.3 * _hash(np.floor(u * 3), np.floor(v * 3))).astype(np.float32)


_FUNCTIONS = {
    Pattern.CHECKER: _checker,
    Pattern.STRIPES: _stripes,
    Pattern.PLANKS: _planks,
    Pattern.BRICKS: _bricks,
    Pattern.SPECKLE: _speckle,
}
