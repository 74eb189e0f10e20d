"""Photos as surfaces, each made once for all of the paths that start from it."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from teacher_service.depth import DepthEstimator
from teacher_service.recent import Recent
from teacher_service.worlds.base import Photo
from teacher_service.worlds.warp import Relief
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError


class Surfaces:
    """The surfaces of photos, by their own depth or by an estimated one.

    Args:
        world: whose they are, for the messages.
        option: of that world, names what estimates depth.
        estimator: for photos that come without depth; None = such a photo can only turn.
        kept: photos whose surfaces stay in memory.
    """

    def __init__(self, world: str, option: str, estimator: DepthEstimator | None, kept: int) -> None:
        self._world = world
        self._option = option
        self._estimator = estimator
        self._reliefs: Recent[str, Relief] = Recent(kept)

    def check(self, photo: Photo, poses: Iterable[Floats]) -> None:
        """Check that a photo has the depth that a path from it needs, or that it can be estimated.

        Args:
            photo: the anchor.
            poses: c2w (4, 4) each, relative to its camera.

        Raises:
            InvalidInputError: it has not.
        """
        if photo.depth is not None and not (np.isfinite(photo.depth) & (photo.depth > 0)).any():
            raise InvalidInputError("the photo's depth is unknown at every pixel")
        if photo.depth is None and self._estimator is None and _moves(poses):
            raise InvalidInputError(
                f"the {self._world} world needs the photo's depth to move; send it or set {self._option}, or turn only"
            )

    def of(self, photo: Photo, poses: Iterable[Floats]) -> tuple[Relief, bool]:
        """Return a photo's surface for a path that was checked, and whether its depth is estimated."""
        if photo.depth is None and not _moves(poses):
            # Any depth will do where the camera only turns, as nothing moves against anything else.
            photo = replace(photo, depth=np.ones(photo.pixels.shape[:2], dtype=np.float32))
        return self._reliefs.get(photo.digest, lambda: self._make(photo)), photo.depth is None

    def _make(self, photo: Photo) -> Relief:
        depth = photo.depth
        if depth is None:
            assert self._estimator is not None
            depth = self._estimator.estimate(photo.pixels, photo.intrinsics)
        return Relief(photo.pixels, depth, photo.intrinsics)


def _moves(poses: Iterable[Floats]) -> bool:
    return any(np.abs(c2w[:3, 3]).max() > 1e-9 for c2w in poses)
