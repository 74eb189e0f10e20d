"""A room's shell: floor, ceiling, walls with their patterns, a skirting, windows and a door, and the light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teacher_service.scenes.meshes import Floats, Mesh, Pattern, merge, surface
from teacher_service.scenes.palette import Rgb, muted
from teacher_service.scenes.room import Light, SceneObject

_CELL = 0.05
_OVERLAP = 0.5  # the planes cross behind the corners, so no ray slips through a seam
_QUAD = np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)


def build_shell(width: float, depth: float, height: float, rng: np.random.Generator) -> Mesh:
    """Build the inside of a closed room of this size in metres; every face belongs to instance 0."""
    saturation = rng.uniform(0.05, 0.24)
    w, d = width / 2 + _OVERLAP, depth / 2 + _OVERLAP
    floor_pattern = Pattern(rng.choice([Pattern.CHECKER, Pattern.PLANKS, Pattern.PLANKS, Pattern.SPECKLE]))
    floor, ceiling = muted(rng, (0.4, 0.75), saturation + 0.06), muted(rng, (0.85, 0.97), 0.05)
    cell = {Pattern.CHECKER: rng.uniform(0.4, 0.8), Pattern.PLANKS: rng.uniform(0.18, 0.3)}.get(floor_pattern, 0.25)
    contrast = np.float32(rng.uniform(0.6, 0.85))
    ground = np.array([[-w, 0, d], [w, 0, d], [w, 0, -d], [-w, 0, -d]], dtype=np.float32)
    above = (ground - np.array([0, height, 0], dtype=np.float32))[::-1]
    meshes = [
        surface(ground, _facing(ground, -1.0), floor, floor * contrast, floor_pattern, cell),
        surface(above, _facing(above, 1.0), ceiling),
    ]
    colour = muted(rng, (0.58, 0.86), saturation)
    for wall in range(4):
        half, out = (width / 2, depth / 2) if wall % 2 == 0 else (depth / 2, width / 2)
        # Each wall has its own tone, so that a turn of the camera shows which wall it looks at.
        tone = np.clip(colour * rng.uniform(0.85, 1.12) + rng.uniform(-0.04, 0.04, 3), 0, 1).astype(np.float32)
        meshes.append(_wall(wall, half, out, height, tone, rng))
    return merge(meshes)


def build_light(width: float, depth: float, height: float, rng: np.random.Generator) -> Light:
    """Draw the light of a room: ambient, a directional part and a lamp below the ceiling."""
    bearing, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1)
    sun = (float(np.cos(bearing) * np.cos(rise)), float(-np.sin(rise)), float(np.sin(bearing) * np.cos(rise)))
    lamp = (float(rng.uniform(-0.3, 0.3) * width), -height + 0.25, float(rng.uniform(-0.3, 0.3) * depth))
    tint = 1.0 + rng.uniform(-0.06, 0.06) * np.array([1.0, 0.2, -1.0])
    return Light(
        ambient=float(rng.uniform(0.66, 0.8)),
        sun=sun,
        sun_strength=float(rng.uniform(0.12, 0.3)),
        lamp=lamp,
        lamp_strength=float(rng.uniform(0.3, 0.55)),
        tint=(float(tint[0]), float(tint[1]), float(tint[2])),
    )


def build_floor_light(width: float, depth: float, objects: Sequence[SceneObject]) -> Floats:
    """Return how bright the floor is on a grid over the room (rows along z, columns along x), 1 in the open.

    It stands in for contact shadows: soft and dark under furniture that touches the floor, and dim along the walls.
    """
    x = (np.arange(round(width / _CELL)) + 0.5) * _CELL - width / 2
    z = (np.arange(round(depth / _CELL)) + 0.5) * _CELL - depth / 2
    x, z = np.meshgrid(x, z)
    edge = np.minimum(width / 2 - np.abs(x), depth / 2 - np.abs(z))
    light: Floats = (1.0 - 0.18 * np.exp(-np.maximum(edge, 0) / 0.25)).astype(np.float32)
    for item in objects:
        if item.base < 0.1 and item.support is None:
            shadow = 0.5 * np.exp(-np.maximum(item.distance(x, z) + 0.05, 0) / 0.12)
            light *= (1.0 - shadow).astype(np.float32)
    return light


def _facing(corners: Floats, down: float) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Return the two triangles of a horizontal quad wound so that its normal has y of the sign of `down`."""
    normal_y = np.cross(corners[1] - corners[0], corners[2] - corners[0])[1]
    return _QUAD if normal_y * down > 0 else _QUAD[:, ::-1].copy()


def _wall(wall: int, half: float, out: float, height: float, colour: Rgb, rng: np.random.Generator) -> Mesh:
    """Build wall 0 (+z), 1 (+x), 2 (-z) or 3 (-x) in the frame of wall 0, then turn it into place."""
    pattern = Pattern(
        rng.choice([Pattern.PLAIN, Pattern.SPECKLE, Pattern.STRIPES, Pattern.BRICKS], p=[0.3, 0.25, 0.25, 0.2])
    )
    cell = {Pattern.STRIPES: rng.uniform(0.25, 0.5), Pattern.BRICKS: rng.uniform(0.16, 0.24)}.get(pattern, 0.2)
    accent = (colour * rng.uniform(0.78, 0.92)).astype(np.float32)
    wide = half + _OVERLAP
    pieces = [_panel(0.0, wide, -_OVERLAP, height + _OVERLAP, out, colour, accent, pattern, cell)]
    trim = np.clip(colour * rng.uniform(0.5, 1.3), 0, 0.95).astype(np.float32)
    pieces.append(_panel(0.0, wide, 0.0, 0.1, out - 0.012, trim))
    if rng.random() < 0.35:
        dado = (colour * rng.uniform(0.6, 0.85)).astype(np.float32)
        rail = rng.uniform(0.8, 1.1)
        pieces.append(_panel(0.0, wide, 0.1, rail, out - 0.006, dado))
        pieces.append(_panel(0.0, wide, rail, rail + 0.07, out - 0.012, trim))
    pieces += _opening(half, out, rng)
    return merge(pieces).placed(wall * np.pi / 2, 0.0, 0.0, 0.0, 0)


def _opening(half: float, out: float, rng: np.random.Generator) -> list[Mesh]:
    """Return a window, a door or nothing, as panels just in front of a wall."""
    choice = rng.random()
    frame, centre = muted(rng, (0.75, 0.95), 0.08), rng.uniform(-0.5, 0.5) * half
    if choice < 0.35:
        wide, low, high = rng.uniform(0.45, 0.8), rng.uniform(0.85, 1.1), rng.uniform(1.95, 2.25)
        glass = np.array([0.72, 0.8, 0.86], dtype=np.float32) * np.float32(rng.uniform(0.7, 1.1))
        pieces = [_panel(centre, wide, low, high, out - 0.015, frame)]
        middle = (low + high) / 2
        for x in (-wide / 2, wide / 2):
            for bottom, top in ((low + 0.07, middle - 0.03), (middle + 0.03, high - 0.07)):
                pieces.append(_panel(centre + x, wide / 2 - 0.06, bottom, top, out - 0.02, glass.clip(0, 1)))
        return pieces
    if choice < 0.6:
        leaf = muted(rng, (0.3, 0.6), 0.25)
        pieces = [
            _panel(centre, 0.52, 0.0, 2.12, out - 0.015, frame),
            _panel(centre, 0.43, 0.0, 2.03, out - 0.02, leaf),
        ]
        for bottom, top in ((0.2, 0.9), (1.1, 1.85)):
            pieces.append(_panel(centre, 0.28, bottom, top, out - 0.025, (leaf * 0.8).astype(np.float32)))
        return pieces
    return []


def _panel(
    x: float,
    half: float,
    low: float,
    high: float,
    z: float,
    colour: Rgb,
    accent: Rgb | None = None,
    pattern: Pattern = Pattern.PLAIN,
    cell: float = 1.0,
) -> Mesh:
    """Return an upright rectangle at depth `z` that faces -z, from height `low` to `high`."""
    corners = np.array([[x - half, -low, z], [x - half, -high, z], [x + half, -high, z], [x + half, -low, z]])
    return surface(corners.astype(np.float32), _QUAD, colour, accent, pattern, cell)
