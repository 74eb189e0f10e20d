"""Choose camera poses in a room from which some furniture is well in view."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from teacher_service.scenes.room import Room

CLEARANCE = 0.45
"""Metres between an anchor camera and anything else."""
NEAR, FAR, HALF_ANGLE = 1.0, 4.5, 38.0
"""Where an object counts as well in view: metres from the camera, and degrees to either side."""
_SIZE = 32
_LEAST = 0.012
_CROWDED = 0.3
_TRIES = 4000
_SALT = 0xA2C802


def anchor_pose(room: Room, index: int) -> npt.NDArray[np.float64]:
    """Return the anchor camera `index` of a room: the same pose for the same room seed and index.

    The camera is level, 1.2-1.4 m above the floor and at least `CLEARANCE` from walls and furniture, and sees at
    least two objects well: each `NEAR` to `FAR` away, within `HALF_ANGLE` of the axis, and visibly unoccluded.

    Returns:
        c2w (4,4) float64, OpenCV camera axes to the room's frame.

    Raises:
        ValueError: no such pose was found in this room.
    """
    rng = np.random.Generator(np.random.PCG64([_SALT, room.seed, index]))
    for _ in range(_TRIES):
        x, z = rng.uniform(-0.5, 0.5, 2) * (room.width, room.depth)
        pose = level_pose(float(x), rng.uniform(1.2, 1.4), float(z), rng.uniform(0, 2 * np.pi))
        if room.clearance(x, z) >= CLEARANCE and sees_furniture(room, pose):
            return pose
    raise ValueError(f"room {room.seed} has no anchor pose {index} that sees two objects")


def level_pose(x: float, height: float, z: float, yaw: float) -> npt.NDArray[np.float64]:
    """Return the c2w (4,4) of a level camera `height` metres above the floor, turned `yaw` radians to the right."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0, s, x], [0, 1, 0, -height], [-s, 0, c, z], [0, 0, 0, 1]], dtype=np.float64)


def sees_furniture(room: Room, pose: npt.NDArray[np.float64]) -> bool:
    """Tell whether at least two objects are well in view and none fills too much of it."""
    ahead = _ahead(room, pose)
    if len(ahead) < 2:
        return False
    # Level camera, 90 degree field of view: the rays of a coarse picture, all with z = 1.
    steps = (np.arange(_SIZE, dtype=np.float32) + 0.5) / _SIZE * 2 - 1
    x, y = np.meshgrid(steps, steps)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3) @ pose[:3, :3].astype(np.float32).T
    origins = np.tile(pose[:3, 3].astype(np.float32), (len(rays), 1))
    instances = room.mesh.instance[room.caster.run(origins, rays)]
    share = np.bincount(instances, minlength=len(room.objects) + 1)[1:] / len(rays)
    return bool(share.max() <= _CROWDED and (share[np.array(ahead) - 1] >= _LEAST).sum() >= 2)


def _ahead(room: Room, pose: npt.NDArray[np.float64]) -> list[int]:
    """Return the ids of the objects that are near enough and close enough to the camera's axis."""
    found = []
    for item in room.objects:
        offset = np.array([item.x, item.z]) - pose[[0, 2], 3]
        bearing = np.degrees(np.arctan2(offset @ pose[[0, 2], 0], offset @ pose[[0, 2], 2]))
        if NEAR <= np.hypot(*offset) <= FAR and abs(bearing) <= HALF_ANGLE:
            found.append(item.instance_id)
    return found
