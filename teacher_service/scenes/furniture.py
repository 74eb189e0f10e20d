"""The catalogue: every category, how it is placed, and how to build one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from teacher_service.scenes import decor, seating, storage
from teacher_service.scenes.meshes import Mesh, Part, assemble
from teacher_service.scenes.palette import tints


@dataclass(frozen=True)
class Kind:
    """How one category is built and placed.

    `wall` is the probability of standing back to a wall; `top` says that small things may stand on it, and `small`
    that it may stand on such a top.
    """

    parts: Callable[[np.random.Generator], list[Part]]
    wall: float
    top: bool = False
    small: bool = False


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "chair": Kind(seating.chair, 0.1),
        "armchair": Kind(seating.armchair, 0.4),
        "sofa": Kind(seating.sofa, 0.85),
        "bench": Kind(seating.bench, 0.5),
        "stool": Kind(seating.stool, 0.0),
        "bed": Kind(seating.bed, 1.0),
        "table": Kind(storage.table, 0.0, top=True),
        "desk": Kind(storage.desk, 0.8, top=True),
        "bookshelf": Kind(storage.bookshelf, 1.0),
        "wardrobe": Kind(storage.wardrobe, 1.0),
        "cabinet": Kind(storage.cabinet, 1.0, top=True),
        "fridge": Kind(storage.fridge, 1.0),
        "television": Kind(storage.television, 1.0),
        "piano": Kind(storage.piano, 1.0),
        "bathtub": Kind(seating.bathtub, 0.7),
        "toilet": Kind(seating.toilet, 1.0),
        "lamp": Kind(decor.lamp, 0.2),
        "plant": Kind(decor.plant, 0.2),
        "vase": Kind(decor.vase, 0.0, small=True),
        "ball": Kind(decor.ball, 0.0),
        "box": Kind(decor.box, 0.1, small=True),
        "clock": Kind(decor.clock, 1.0),
    }
)
CATEGORIES: Final[tuple[str, ...]] = tuple(KINDS)
"""Every furniture category, one lower-case word each."""


_HANGING = 0.5


@dataclass(frozen=True)
class Piece:
    """A built piece of furniture, in metres.

    `mesh` has the middle of its underside at the origin, `size` is (width, height, depth), and `base` is how high the
    underside belongs above the floor: 0 unless the piece hangs on a wall.
    """

    mesh: Mesh
    size: tuple[float, float, float]
    base: float


def build_piece(category: str, colour: str, rng: np.random.Generator) -> Piece:
    """Build one piece of furniture with random proportions.

    Raises:
        KeyError: the category or the colour is not one of `CATEGORIES` or `COLOURS`.
    """
    mesh = assemble(KINDS[category].parts(rng), tints(colour, rng))
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    # A piece hangs well above the floor or stands on it, whatever its parts say to the centimetre.
    base = float(-high[1]) if -high[1] > _HANGING else 0.0
    centre = np.array([(low[0] + high[0]) / 2, high[1], (low[2] + high[2]) / 2], dtype=np.float32)
    width, height, depth = (float(extent) for extent in high - low)
    return Piece(replace(mesh, vertices=mesh.vertices - centre), (width, height, depth), base)
