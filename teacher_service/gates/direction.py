"""`direction`: a camera that moved where no depth is known, judged by where to, as the epipolar constraint tells.

With the rotation as commanded, the essential matrix [t]x R has two unknowns left and each track gives one linear
equation, t . (a x R b) = 0 (Hartley & Zisserman, section 9.6). How far the camera went cannot be told.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from teacher_service.gates.pictures import Grey
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import View
from world2vlm.cameras import Floats

_CORNERS, _QUALITY, _SPACING = 300, 0.005, 4
_WINDOW, _LEVELS = (15, 15), 3
# Pixels between a corner and where its track leads back to.
_RETURN_PX = 0.5
_LEAST_TRACKS = 16
# Grey values for one standard deviation of detail.
_CONTRAST = 24
_ROUNDS = 10


def judge_direction(reference: View, view: View, settings: GateSettings) -> Verdict | None:
    """Compare the direction of the move between two views with the commanded one; None where too few tracks last."""
    here, there = _tracks(reference, view)
    if len(here) < _LEAST_TRACKS:
        return None
    pose = view.seen_from(reference)
    first = _rays(here, reference)
    second = _rays(there, view) @ pose[:3, :3].T
    found, parallax = _direction(first, second)
    parallax *= float(view.picture.intrinsics[0, 0])
    commanded = pose[:3, 3] / np.linalg.norm(pose[:3, 3])
    error = float(np.degrees(np.arccos(np.clip(found @ commanded, -1, 1))))
    moves = parallax >= settings.direction_parallax_px
    sentence = (
        f"the camera moved {error:.0f} degrees off its direction, and at most {settings.direction_deg:g} are allowed; "
        f"things moved by {parallax:.1f} pixels, and at least {settings.direction_parallax_px:g} are needed to tell"
    )
    scores = {"gate_direction_error_deg": error, "gate_direction_parallax_px": parallax}
    return decide("direction", error, sentence, most=settings.direction_deg, also=moves, scores=scores)


def _tracks(reference: View, view: View) -> tuple[Floats, Floats]:
    """Pixel positions (N, 2) of corners in the reference and in the view, those that lead there and back."""
    first, second = (_levelled(each.picture.detail.grey) for each in (reference, view))
    corners = cv2.goodFeaturesToTrack(first, _CORNERS, _QUALITY, _SPACING)
    if corners is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    there, found = _follow(first, second, np.asarray(corners, dtype=np.float32))
    back, found_back = _follow(second, first, there)
    closed = np.linalg.norm((back - corners).reshape(-1, 2), axis=1) < _RETURN_PX
    kept = closed & found & found_back
    return corners.reshape(-1, 2)[kept].astype(np.float64), there.reshape(-1, 2)[kept].astype(np.float64)


def _levelled(detail: Grey) -> NDArray[np.uint8]:
    """Detail as 8-bit values that do not depend on the exposure, which following points would take for motion."""
    spread = max(float(detail.std()), 0.5)
    return np.asarray(np.clip(np.rint(128 + _CONTRAST * detail / spread), 0, 255), dtype=np.uint8)


def _follow(
    first: NDArray[np.uint8], second: NDArray[np.uint8], points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow points (N, 1, 2) from one picture to another; return where they are, and which were found."""
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, np.empty_like(points), winSize=_WINDOW, maxLevel=_LEVELS
    )
    return np.asarray(there, dtype=np.float32), np.asarray(found).ravel() > 0


def _rays(pixels: Floats, view: View) -> Floats:
    """Directions (N, 3) with z = 1 through pixels that arrays count from 0."""
    homogeneous = np.concatenate([pixels + 0.5, np.ones((len(pixels), 1))], axis=1)
    return np.asarray(homogeneous @ np.linalg.inv(view.picture.intrinsics).T)


def _direction(first: Floats, second: Floats) -> tuple[Floats, float]:
    """The unit direction of the second camera from the first, and the median parallax in units of the focal length.

    Args:
        first: float64 (N, 3), rays from the first camera.
        second: the same from the second, turned into the first camera's frame.
    """
    normals = np.cross(first, second)
    size = np.linalg.norm(normals, axis=1)
    weight = np.ones(len(normals))
    direction = np.array([0.0, 0.0, 1.0])
    # Reweighted least squares with Cauchy's weights: tracks that went astray have little say.
    for _ in range(_ROUNDS):
        direction = np.linalg.svd(normals * weight[:, None], full_matrices=False)[2][-1]
        residual = np.abs(normals @ direction)
        weight = 1 / np.sqrt(1 + (residual / (1.5 * np.median(residual) + 1e-6)) ** 2)
    # What the camera passes moves the other way: -(t - a t_z), by an amount that the depth divides.
    away = np.einsum("ij,ij->i", first - second, direction - first * direction[2])
    sign = 1.0 if float(np.sum(np.sign(away) * size * weight)) >= 0 else -1.0
    return sign * direction, float(np.median(size))
