"""Camera geometry: OpenCV axes (x right, y down, z forward), c2w poses, metres, pinhole intrinsics K in pixels."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from world2vlm.actions import Action, Primitive
from world2vlm.errors import InvalidInputError

Floats = NDArray[np.float64]

MAX_STEP_M = 0.2
MAX_STEP_DEG = 5.0
_DIRECTION = {
    Primitive.FORWARD: (0.0, 0.0, 1.0),
    Primitive.BACKWARD: (0.0, 0.0, -1.0),
    Primitive.LEFT: (-1.0, 0.0, 0.0),
    Primitive.RIGHT: (1.0, 0.0, 0.0),
}


def yaw_matrix(degrees: float) -> Floats:
    """Rotate about the y axis by `degrees`; positive turns right. Returns float64 (3, 3)."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def relative_pose(action: Action) -> Floats:
    """Pose after one action in the frame of the camera before it: float64 (4, 4) c2w."""
    pose = np.eye(4)
    if action.primitive.is_turn:
        sign = -1.0 if action.primitive is Primitive.TURN_LEFT else 1.0
        pose[:3, :3] = yaw_matrix(sign * action.magnitude)
    else:
        pose[:3, 3] = np.array(_DIRECTION[action.primitive]) * action.magnitude
    return pose


def integrate(actions: Sequence[Action], start: Floats | None = None) -> Floats:
    """Integrate actions into poses (World2VLM's frame rule: each acts in the camera's own frame).

    Args:
        actions: N actions.
        start: first pose, (4, 4) c2w; identity by default.

    Returns:
        float64 (N + 1, 4, 4) c2w, the start first. `turn left 30` ends facing (-0.5, 0, 0.866).
    """
    poses = [np.eye(4) if start is None else check_pose(start)]
    for action in actions:
        poses.append(poses[-1] @ relative_pose(action))
    return np.stack(poses)


def subdivide(action: Action) -> list[Action]:
    """Split an action into equal steps of at most 0.2 m or 5 degrees (World2VLM's max_step)."""
    step = MAX_STEP_DEG if action.primitive.is_turn else MAX_STEP_M
    count = max(1, math.ceil(action.magnitude / step - 1e-9))
    return [Action(action.primitive, action.magnitude / count)] * count


def check_pose(c2w: Floats) -> Floats:
    """Return `c2w` as float64 (4, 4).

    Raises:
        InvalidInputError: wrong shape, non-finite values, or no rigid transform.
    """
    pose = np.asarray(c2w, dtype=np.float64)
    if pose.shape != (4, 4):
        raise InvalidInputError(f"a c2w pose must have shape (4, 4), not {pose.shape}")
    rotation = pose[:3, :3]
    rigid = np.isfinite(pose).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)
    if not rigid or np.linalg.det(rotation) < 0 or not np.allclose(pose[3], (0, 0, 0, 1)):
        raise InvalidInputError("a c2w pose must be a finite rigid transform with last row 0 0 0 1")
    return pose


def intrinsics_from_fov(horizontal_deg: float, width: int, height: int) -> Floats:
    """Pinhole K with square pixels and a centred principal point: float64 (3, 3), pixels.

    Raises:
        InvalidInputError: a field of view that is not between 0 and 180 degrees.
    """
    if not 0 < horizontal_deg < 180:
        raise InvalidInputError(f"a field of view must be between 0 and 180 degrees, not {horizontal_deg}")
    focal = width / 2 / math.tan(math.radians(horizontal_deg) / 2)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def check_intrinsics(intrinsics: Floats) -> Floats:
    """Return K as float64 (3, 3).

    Raises:
        InvalidInputError: wrong shape, non-finite, or a focal length that is not positive.
    """
    matrix = np.asarray(intrinsics, dtype=np.float64)
    if matrix.shape != (3, 3):
        raise InvalidInputError(f"intrinsics K must have shape (3, 3), not {matrix.shape}")
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise InvalidInputError("intrinsics K must be finite with focal lengths greater than 0")
    return matrix


def pixel_rays(intrinsics: Floats, width: int, height: int) -> NDArray[np.float32]:
    """Directions with z = 1 through the pixel centres, camera frame: float32 (height, width, 3)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x = (u - intrinsics[0, 2]) / intrinsics[0, 0]
    y = (v - intrinsics[1, 2]) / intrinsics[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1).astype(np.float32)
