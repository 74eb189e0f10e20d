"""A world of photos, with the objects that a detector finds in its frames."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from teacher_service.objects.detector import Detector
from teacher_service.objects.filters import ObjectFilters
from teacher_service.objects.tracking import ObjectTracker
from teacher_service.worlds.base import ImagineSpec, Photo, World
from teacher_service.worlds.depths import Depths
from teacher_service.worlds.wrapping import WrappedWorld
from world2vlm.bundles import Frame
from world2vlm.worlds import WorldInfo


class WithObjects(WrappedWorld):
    """Wraps a world: its frames of photos come with objects, its frames of scenes as they are.

    Args:
        world: who imagines.
        detector: finds objects in single frames.
        filters: what counts, and what may be asked about.
        depths: for photos without depth; None = such photos get objects only where the camera does not move.
    """

    def __init__(self, world: World, detector: Detector, filters: ObjectFilters, depths: Depths | None = None) -> None:
        super().__init__(world)
        self._detector = detector
        self._filters = filters
        self._depths = depths

    @property
    def info(self) -> WorldInfo:
        """What the wrapped world says; the digest is that of both, as bundles hold what the detector found, too."""
        info = self._world.info
        both = hashlib.sha256(f"{info.digest} {self._detector.digest}".encode()).hexdigest()
        return replace(info, digest=both)

    def _passed(self, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        tracker = self._tracker(spec)
        for frame in frames:
            yield tracker.add(frame) if tracker else frame

    def _tracker(self, spec: ImagineSpec) -> ObjectTracker | None:
        """Who follows the objects; None where nothing could tell which is which."""
        photo = spec.anchor
        if not isinstance(photo, Photo):
            return None
        depth = photo.depth
        if depth is None and any(np.abs(waypoint.c2w[:3, 3]).max() > 1e-9 for waypoint in spec.path):
            if self._depths is None:
                return None
            depth = self._depths.of(photo)
        height, width = photo.pixels.shape[:2]
        return ObjectTracker(depth, photo.intrinsics, (width, height), self._detector, self._filters)
