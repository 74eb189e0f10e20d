"""How far a camera is from where it should be: move it until what geometry predicts agrees with what it shows.

Direct alignment (Lucas & Kanade 1981; Baker & Matthews 2004, section 3) over the six parameters of a pose, weighted
against outliers (Tukey), on the detail of both pictures, from coarse to fine.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from teacher_service.gates.pictures import BAND, Grey, Picture, correlations
from world2vlm.cameras import Floats, pixel_rays

# Standard deviations of the blurs, pixels, and the iterations with each.
_LEVELS = ((4.0, 5), (2.0, 5), (0.8, 6))
# Tukey's constant: residuals beyond so many robust standard deviations have no say.
_TUKEY = 4.7
_LEAST_PIXELS = 64
# How firmly the commanded rotation is believed: a small turn and a small sideways move look almost alike. In residuals
# of one standard deviation for a degree.
_ROTATION_WEIGHT = 10.0 * (180 / np.pi) ** 2
# So many pixels, those with the steepest detail, tell as much as all of them do.
_MOST_PIXELS = 3000


@dataclass(frozen=True)
class Prediction:
    """What a camera should see, with its depth.

    Attributes:
        picture: the predicted view.
        depth: float32 (height, width), metres along its z.
        seen: bool (height, width); False where nothing is predicted.
    """

    picture: Picture
    depth: NDArray[np.float32]
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Offset:
    """Where a camera really is, in the frame of the camera where it should be.

    Attributes:
        rotation_deg: angle of the rotation between the two.
        translation: float64 (3,), metres.
        agreement: the correlation of prediction and frame as commanded, before anything is aligned.
    """

    rotation_deg: float
    translation: Floats
    agreement: float


def align(prediction: Prediction, frame: Picture) -> Offset | None:
    """Find the offset; None where too little is predicted to tell."""
    if prediction.seen.sum() < _LEAST_PIXELS:
        return None
    height, width = prediction.picture.shape
    rays = pixel_rays(prediction.picture.intrinsics, width, height)
    seen = _telling(prediction)
    points = (prediction.depth[..., None] * rays).reshape(-1, 3)[seen].astype(np.float64)
    parameters, detail = np.zeros(6), frame.detail.grey
    for blur, iterations in _LEVELS:
        wanted = _known(prediction, blur).ravel()[seen]
        shown = _with_slopes(np.asarray(cv2.GaussianBlur(detail, (0, 0), blur)))
        for _ in range(iterations):
            step = _step(parameters, points, wanted, shown, frame.intrinsics)
            parameters = parameters + step
            if np.abs(step).max() < 1e-4:
                break
    return Offset(
        float(np.degrees(np.linalg.norm(parameters[:3]))),
        parameters[3:],
        _agreement(points, wanted, shown, frame.intrinsics),
    )


def _telling(prediction: Prediction) -> NDArray[np.intp]:
    """Indices of the predicted pixels that say most about where the camera is."""
    detail = _known(prediction, _LEVELS[-1][0])
    steep = np.abs(np.diff(detail, axis=0, append=detail[-1:])) + np.abs(np.diff(detail, axis=1, append=detail[:, -1:]))
    found = np.flatnonzero(prediction.seen)
    if len(found) <= _MOST_PIXELS:
        return found
    return np.asarray(found[np.argpartition(steep.ravel()[found], -_MOST_PIXELS)[-_MOST_PIXELS:]])


def _known(prediction: Prediction, blur: float) -> Grey:
    """Blurred detail of what is predicted; what is not has no part in it (normalised convolution)."""
    seen = prediction.seen.astype(np.float32)
    shades = _masked_blur(prediction.picture.grey, seen, BAND)
    return _masked_blur(prediction.picture.grey - shades, seen, blur)


def _masked_blur(grey: Grey, seen: Grey, blur: float) -> Grey:
    mass = np.maximum(cv2.GaussianBlur(seen, (0, 0), blur), 1e-3)
    return np.asarray(cv2.GaussianBlur(grey * seen, (0, 0), blur) / mass)


def _move(parameters: Floats, points: Floats) -> Floats:
    """Points in the frame of a camera at the offset (rotation vector, translation)."""
    rotation = np.asarray(cv2.Rodrigues(parameters[:3])[0])
    return np.asarray((points - parameters[3:]) @ rotation)


def _project(points: Floats, intrinsics: Floats) -> Floats:
    """Pixel coordinates (N, 2) as arrays count them: the first pixel's centre is 0."""
    ahead = np.maximum(points[:, 2:], 1e-2)
    focal, centre = np.diagonal(intrinsics)[:2], intrinsics[:2, 2]
    return np.asarray(points[:, :2] / ahead * focal + centre - 0.5)


def _with_slopes(grey: Grey) -> Grey:
    """Values and slopes across and down, float32 (height, width, 3)."""
    slopes = [np.asarray(cv2.Sobel(grey, cv2.CV_32F, *axes, ksize=3, scale=1 / 8)) for axes in ((1, 0), (0, 1))]
    return np.stack([grey, *slopes], axis=-1).astype(np.float32)


def _sample(values: Grey, places: Floats) -> tuple[Grey, NDArray[np.bool_]]:
    """Values (N, channels) at places, and which of these lie inside."""
    height, width = values.shape[:2]
    columns, rows = (np.ascontiguousarray(places[None, :, axis], dtype=np.float32) for axis in (0, 1))
    inside = ((columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1))[0]
    found = cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32)[0], inside


def _agreement(points: Floats, wanted: Grey, shown: Grey, intrinsics: Floats) -> float:
    values, inside = _sample(shown, _project(points, intrinsics))
    return float(correlations(values[None, :, 0], wanted, inside[None])[0][0])


def _step(parameters: Floats, points: Floats, wanted: Grey, shown: Grey, intrinsics: Floats) -> Floats:
    """One Gauss-Newton step of the six parameters."""
    moved = _move(parameters, points)
    places = _project(moved, intrinsics)
    sampled, inside = _sample(shown, places)
    values, across, down = sampled.T
    # One gain, as exposure may differ; detail has no bias.
    gain = float(np.clip((values * wanted)[inside].sum() / max((wanted[inside] ** 2).sum(), 1e-6), 0.5, 2))
    residual = values - gain * wanted
    scale = 1.4826 * float(np.median(np.abs(residual[inside]))) + 0.1 if inside.any() else 1.0
    weight = inside * np.maximum(1 - (residual / (_TUKEY * scale)) ** 2, 0) ** 2
    x, y, z = moved[:, 0], moved[:, 1], np.maximum(moved[:, 2], 1e-2)
    u, v = across * intrinsics[0, 0] / z, down * intrinsics[1, 1] / z
    slope = np.stack([u, v, -(u * x + v * y) / z], axis=1)
    # d moved = moved x d rotation - d translation, both in the moved camera's frame.
    jacobian = np.concatenate([-np.cross(moved, slope), -slope], axis=1)
    weighted = jacobian * weight[:, None]
    normal = weighted.T @ jacobian
    prior = np.zeros(6)
    prior[:3] = _ROTATION_WEIGHT * scale**2
    damping = np.diag(1e-3 * np.diagonal(normal) + 1e-6 + prior)
    step = -np.linalg.solve(normal + damping, weighted.T @ residual + prior * parameters)
    rotation = np.asarray(cv2.Rodrigues(parameters[:3])[0])
    return np.concatenate([step[:3], rotation @ step[3:]])
