"""How far a camera turned between two pictures: warp one by every candidate, and see which agrees with the other."""

from dataclasses import dataclass

import cv2
import numpy as np

from teacher_service.gates.pictures import Picture, correlations, turned
from world2vlm.cameras import Floats

# Degrees: the grid reaches so far to either side of no turn and so far beyond the commanded one.
_REACH, _BEYOND = 60.0, 20.0
_COARSE, _FINE = 3.0, 0.6
# Steps of the fine grid to either side of the best of the coarse one.
_STEPS = 5
_LEAST_SHARE = 0.12

Pictures = tuple[Picture, Picture]


@dataclass(frozen=True)
class Turn:
    """What was found.

    Attributes:
        angle_deg: how far the camera turned about the commanded axis; positive = the commanded way.
        agreement: the correlation of the two pictures' details at that angle, -1 to 1.
        margins_db: by how much less this leaves unexplained than the turn opposite to the commanded one does, and
            than none at all; only those of the two whose view overlaps enough to tell.
    """

    angle_deg: float
    agreement: float
    margins_db: tuple[float, ...]


def axis_angle(rotation: Floats) -> tuple[Floats, float]:
    """Return the unit axis (3,) and the angle in degrees, 0 to 180, of a rotation (3, 3); no turn is about y."""
    vector = np.asarray(cv2.Rodrigues(rotation)[0], dtype=np.float64).ravel()
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 1e-6 else np.array([0.0, 1.0, 0.0])
    return np.asarray(axis, dtype=np.float64), float(np.degrees(angle))


def overlap(reference: Picture, frame: Picture, rotation: Floats) -> float:
    """Return the share of a frame that the reference shows, where the camera only turned by `rotation` (3, 3)."""
    return float(turned(reference, frame, rotation[None])[1].mean())


def measure_turn(coarse: Pictures, fine: Pictures, axis: Floats, commanded_deg: float) -> Turn:
    """Search for the angle about an axis that explains a frame.

    Args:
        coarse: details of the reference and of the frame, for the grid.
        fine: the same with more pixels, for its refinement.
        axis: float64 (3,), unit, in the reference's frame.
        commanded_deg: the angle that should be found, 0 to 180.
    """
    ends = _BEYOND + max(_REACH, commanded_deg)
    grid = np.arange(-ends, ends + _COARSE / 2, _COARSE)
    best = float(grid[int(np.argmax(_scores(coarse, axis, grid)))])
    grid = best + _FINE * np.arange(-_STEPS, _STEPS + 1, dtype=np.float64)
    scores = _scores(fine, axis, grid)
    peak = int(np.argmax(scores))
    angle = float(grid[peak]) + _FINE * _vertex(scores, peak)
    hypotheses = _scores(fine, axis, np.array([-commanded_deg, 0.0]))
    found, *others = _unexplained_db(np.array([scores[peak], *hypotheses]))
    margins = tuple(float(other - found) for other, score in zip(others, hypotheses, strict=True) if score > -1)
    return Turn(angle, float(scores[peak]), margins)


def rotations_about(axis: Floats, angles_deg: Floats) -> Floats:
    """Return rotation matrices, float64 (N, 3, 3), about a unit axis (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angles = np.radians(angles_deg)[:, None, None]
    return np.asarray(np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * (cross @ cross))


def _scores(pair: Pictures, axis: Floats, angles_deg: Floats) -> Floats:
    """Correlations at angles; -1 where the overlap is too small to tell."""
    reference, frame = pair
    views, inside = turned(reference, frame, rotations_about(axis, angles_deg))
    found, share = correlations(views, frame.grey, inside)
    return np.where(share < _LEAST_SHARE, -1.0, found)


def _unexplained_db(correlation: Floats) -> Floats:
    """The share of a picture's variance that another leaves unexplained, in decibels; 0 = all of it."""
    return np.asarray(10 * np.log10(np.maximum(1 - np.maximum(correlation, 0) ** 2, 1e-6)))


def _vertex(scores: Floats, peak: int) -> float:
    """Where the parabola through a peak and its neighbours is highest, in steps from the peak."""
    if not 0 < peak < len(scores) - 1:
        return 0.0
    before, top, after = scores[peak - 1 : peak + 2]
    curvature = before - 2 * top + after
    return 0.0 if curvature > -1e-9 else float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))
