"""Which detection is which object: by where the object's surface must appear, not by its name alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from teacher_service.objects.detector import Corners, Detection, overlap
from teacher_service.objects.filters import ObjectFilters


@dataclass(frozen=True)
class Expected:
    """Where an object should appear in a frame: its label, and the box (pixels) of its surface; None = nowhere."""

    label: str
    box: Corners | None


def match(expected: Sequence[Expected], detections: Sequence[Detection], filters: ObjectFilters) -> dict[int, int]:
    """Assign detections to objects, one to one, so that their overlaps add up to the most (Kuhn 1955).

    Returns:
        Index of the object -> index of its detection; objects and detections without a partner are left out.
    """
    gains = np.array([[_gain(each, one, filters) for one in detections] for each in expected])
    if not gains.size:
        return {}
    rows, columns = linear_sum_assignment(gains, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if gains[row, column] > 0}


def _gain(expected: Expected, detection: Detection, filters: ObjectFilters) -> float:
    """The overlap where it is enough to be the same object, else 0."""
    if expected.box is None:
        return 0.0
    least = filters.min_match if expected.label == detection.label else filters.min_match_renamed
    shared = overlap(expected.box, detection.box)
    return shared if shared >= least else 0.0
