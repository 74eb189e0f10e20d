"""A view with what the gates work out from it once, and how it lies to others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from teacher_service.gates.pictures import Picture, fit, shrink
from world2vlm.bundles import ObjectView
from world2vlm.cameras import Floats

COARSE_SIDE, FINE_SIDE, SIDE = 48, 96, 128
"""Pixels of the longer side at the gates' three working sizes."""
_STANDING_M = 1e-4


@dataclass(frozen=True)
class View:
    """A frame as a world returned it.

    Attributes:
        pixels: uint8 (height, width, 3).
        intrinsics: K, float64 (3, 3), in its pixels.
        c2w: float64 (4, 4), relative to the anchor.
        objects: what is in view, with ids that stay the same along the trajectory.
    """

    pixels: NDArray[np.uint8]
    intrinsics: Floats
    c2w: Floats
    objects: Sequence[ObjectView] = ()

    @cached_property
    def picture(self) -> Picture:
        """At most `SIDE` pixels a side."""
        return shrink(self.pixels, self.intrinsics, SIDE)

    @cached_property
    def fine(self) -> Picture:
        """Detail, at most `FINE_SIDE` pixels a side."""
        return shrink(self.pixels, self.intrinsics, FINE_SIDE).detail

    @cached_property
    def coarse(self) -> Picture:
        """Detail, at most `COARSE_SIDE` pixels a side."""
        return shrink(self.pixels, self.intrinsics, COARSE_SIDE).detail

    def reduced(self) -> "View":
        """The same with no more pixels than the gates look at, to be kept as long as the trajectory goes on."""
        size, intrinsics = fit(self.pixels.shape, self.intrinsics, SIDE)
        pixels = np.asarray(cv2.resize(self.pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        return replace(self, pixels=pixels, intrinsics=intrinsics)

    def seen_from(self, other: "View") -> Floats:
        """This view's pose in the camera frame of another, float64 (4, 4)."""
        return np.asarray(np.linalg.inv(other.c2w) @ self.c2w)

    def stands_where(self, other: "View") -> bool:
        """Whether the camera only turned between the two."""
        return bool(np.linalg.norm(self.c2w[:3, 3] - other.c2w[:3, 3]) < _STANDING_M)
