"""The port that every detector implements, and what comes out of it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from world2vlm.bundles import Frame

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Detection:
    """Something in one frame.

    Attributes:
        label: what it is, in lower case, as a question would call it.
        score: the detector's confidence, 0 to 1.
        box: (x1, y1, x2, y2) in pixels of the frame, edges and not centres.
        mask: bool (height, width), the pixels that show it; None where the detector gives boxes only.
    """

    label: str
    score: float
    box: Corners
    mask: NDArray[np.bool_] | None = None


class Detector(Protocol):
    """Finds objects in single frames. Several threads may ask at once.

    Attributes:
        digest: sha256 of what decides on what it finds: weights, configuration, vocabulary.
    """

    digest: str

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        """Return what is in a frame, in a fixed order: a model looks at its pixels, a known scene at its instance map.

        Raises:
            InvalidInputError: the frame lacks what this detector looks at.
        """
        ...


def overlap(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    total = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / total if total > 0 else 0.0
