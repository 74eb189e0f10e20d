"""Furnish a room: choose categories and colours, and find places where nothing overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from teacher_service.scenes.furniture import CATEGORIES, KINDS, Piece, build_piece
from teacher_service.scenes.meshes import Mesh, merge
from teacher_service.scenes.palette import COLOURS
from teacher_service.scenes.room import Room, SceneObject
from teacher_service.scenes.shell import build_floor_light, build_light, build_shell

MARGIN = 0.15
"""Metres that always separate two footprints."""
_WALL_GAP = 0.05
_TRIES = 60
_FILL = 0.34
_SMALL = 0.5
_SALT = 0x5CE7E


def build_room(seed: int) -> Room:
    """Build the furnished room of a seed: the same room for the same seed on any machine.

    Args:
        seed: a non-negative integer.

    Returns:
        A closed room 4.5-7 m wide and deep and 2.6-2.8 m high with five to eight objects. About two thirds of the
        rooms hold two or three objects of one category; apart from those, (category, colour) is unique in a room.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"a room's seed must not be negative, got {seed}")
    rng = np.random.Generator(np.random.PCG64([_SALT, seed]))
    width, depth, height = rng.uniform(4.5, 7.0), rng.uniform(4.5, 7.0), rng.uniform(2.6, 2.8)
    shell = build_shell(width, depth, height, rng)
    light = build_light(width, depth, height, rng)
    furnishing = _Furnishing(width, depth, rng)
    count = int(rng.integers(5, 9))
    for category in _wish_list(count, rng):
        furnishing.add(category)
    while len(furnishing.objects) < 5:
        furnishing.add(str(rng.choice(["chair", "stool", "ball", "lamp", "plant", "box"])))
    objects = tuple(furnishing.objects)
    mesh = merge([shell, *furnishing.meshes])
    return Room(seed, width, depth, height, objects, mesh, light, build_floor_light(width, depth, objects))


def _wish_list(count: int, rng: np.random.Generator) -> list[str]:
    """Return the categories to place, large ones first so that they find a wall, things for tops last."""
    order = [str(category) for category in rng.permutation(CATEGORIES)]
    repeats = int(rng.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    wishes = [order[0]] * repeats + order[1 : count - repeats + 1]
    return sorted(wishes, key=lambda category: (KINDS[category].small, -KINDS[category].wall))


@dataclass
class _Furnishing:
    """The objects placed so far; `add` finds a place for one more or leaves it out."""

    width: float
    depth: float
    rng: np.random.Generator
    objects: list[SceneObject] = field(default_factory=list)
    meshes: list[Mesh] = field(default_factory=list)

    def add(self, category: str) -> None:
        """Place one object of this category if there is room for it."""
        colour = self._colour(category)
        piece = build_piece(category, colour, self.rng)
        spot = self._on_top(category, piece) or self._on_floor(category, piece)
        if spot is None:
            return
        x, z, yaw, base, support = spot
        number = len(self.objects) + 1
        self.objects.append(SceneObject(number, category, colour, x, z, yaw, piece.size, base, support))
        self.meshes.append(piece.mesh.placed(yaw, x, -base, z, number))

    def _colour(self, category: str) -> str:
        """Draw a colour; a repeated category keeps its twin's colour in one case of five."""
        used = [item.colour for item in self.objects if item.category == category]
        if used and self.rng.random() < 0.2:
            return used[0]
        return str(self.rng.choice([colour for colour in COLOURS if colour not in used]))

    def _on_top(self, category: str, piece: Piece) -> tuple[float, float, float, float, int | None] | None:
        if not KINDS[category].small or self.rng.random() < 0.35:
            return None
        taken = {item.support for item in self.objects}
        for host in self.objects:
            reach = float(np.hypot(piece.size[0], piece.size[2])) / 2
            room = min(host.size[0], host.size[2]) / 2 - reach - 0.02
            if KINDS[host.category].top and host.instance_id not in taken and room > 0:
                x, z = (float(at + self.rng.uniform(-0.7, 0.7) * room) for at in (host.x, host.z))
                yaw = host.yaw + float(self.rng.uniform(-0.5, 0.5))
                return x, z, yaw, host.base + host.size[1], host.instance_id
        return None

    def _on_floor(self, category: str, piece: Piece) -> tuple[float, float, float, float, int | None] | None:
        # Large pieces leave floor for the camera; small ones always may try, so that a room gets its five objects.
        area = piece.size[0] * piece.size[2]
        filled = sum(item.size[0] * item.size[2] for item in self.objects if item.support is None)
        if area > _SMALL and filled + area > _FILL * self.width * self.depth:
            return None
        against = self.rng.random() < KINDS[category].wall
        for _ in range(_TRIES):
            x, z, yaw = self._against_wall(piece.size) if against else self._standing_free()
            trial = SceneObject(0, category, "", x, z, yaw, piece.size, piece.base)
            if self._fits(trial):
                return x, z, yaw, piece.base, None
        return None

    def _against_wall(self, size: tuple[float, float, float]) -> tuple[float, float, float]:
        wall = int(self.rng.integers(4))
        half, out = (self.width / 2, self.depth / 2) if wall % 2 == 0 else (self.depth / 2, self.width / 2)
        along = self.rng.uniform(-1, 1) * max(half - size[0] / 2 - _WALL_GAP, 0.0)
        back = out - size[2] / 2 - _WALL_GAP
        yaw = wall * np.pi / 2
        c, s = np.cos(yaw), np.sin(yaw)
        return float(c * along + s * back), float(-s * along + c * back), float(yaw)

    def _standing_free(self) -> tuple[float, float, float]:
        x, z = self.rng.uniform(-0.5, 0.5, 2) * (self.width, self.depth)
        return float(x), float(z), float(self.rng.uniform(0, 2 * np.pi))

    def _fits(self, trial: SceneObject) -> bool:
        limit = np.array([self.width, self.depth]) / 2 - (_WALL_GAP - 1e-3)
        if bool((np.abs(trial.corners()) > limit).any()):
            return False
        return all(item.support is not None or separated(trial, item, MARGIN) for item in self.objects)


def separated(a: SceneObject, b: SceneObject, margin: float) -> bool:
    """Tell whether two footprints are at least `margin` metres apart along one of their four axes."""
    corners: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = (a.corners(), b.corners())
    for item in (a, b):
        c, s = np.cos(item.yaw), np.sin(item.yaw)
        for axis in ((c, -s), (s, c)):
            first, second = (points @ np.array(axis) for points in corners)
            if max(first.min() - second.max(), second.min() - first.max()) >= margin:
                return True
    return False
