"""The detector of known scenes: what the renderer's own instance map says."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from teacher_service.objects.detector import Detection
from world2vlm.bundles import Frame, ObjectView
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_map


class KnownObjects:
    """Detects what a frame's world already knows: needs no weights, and errs in nothing.

    Frames must come with their instance map (`ImagineSpec.with_instances`).
    """

    digest = hashlib.sha256(b"known objects").hexdigest()

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        """Return one detection for each object in view; see `Detector.detect`."""
        if not frame.objects:
            return ()
        if not frame.instances_png:
            raise InvalidInputError("known objects need the frame's instance map: ask the world for it")
        instances = decode_map(frame.instances_png)
        return tuple(_detection(view, instances == view.instance_id) for view in frame.objects)


def _detection(view: ObjectView, mask: NDArray[np.bool_]) -> Detection:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise InvalidInputError(f"the instance map does not show object {view.instance_id}, though it is in view")
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    return Detection(view.category, 1.0, box, mask)
