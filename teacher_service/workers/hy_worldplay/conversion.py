"""Paths as HY-WorldPlay takes them: unit moves, one a latent, each with its label; without anything of its package."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from world2vlm.cameras import Floats, yaw_matrix
from world2vlm.errors import InvalidInputError

# `hyvideo.generate.parse_pose_string`: what one latent moves or turns.
STEP_UNITS = 0.08
STEP_DEG = 3.0
# Frames of a latent, and latents of a chunk; the first latent has one frame.
LATENT_FRAMES = 4
CHUNK_LATENTS = 4
# (forward, right) or (right turn, upward turn), each -1, 0 or 1; `hyvideo.generate.mapping`.
_CLASS = {(0, 0): 0, (1, 0): 1, (-1, 0): 2, (0, 1): 3, (0, -1): 4, (1, 1): 5, (1, -1): 6, (-1, 1): 7, (-1, -1): 8}


@dataclass(frozen=True)
class Steps:
    """What one latent does, in unit moves: -1, 0 or 1 each.

    Attributes:
        forward: 1 = forward, -1 = backward.
        right: 1 = right, -1 = left.
        yaw: 1 = turn right, -1 = turn left.
        pitch: 1 = turn upward, -1 = downward.
    """

    forward: int = 0
    right: int = 0
    yaw: int = 0
    pitch: int = 0

    @property
    def label(self) -> int:
        """The action's class, 9 * translation + rotation: 81 of them."""
        return 9 * _CLASS[self.forward, self.right] + _CLASS[self.yaw, self.pitch]

    def pose(self, metres: float) -> Floats:
        """The c2w (4, 4) after this, in the camera before it; a move is `metres` long. Turns come first."""
        pose = np.eye(4)
        pose[:3, :3] = yaw_matrix(STEP_DEG * self.yaw) @ pitch_matrix(STEP_DEG * self.pitch)
        pose[:3, 3] = pose[:3, :3] @ (metres * self.right, 0.0, metres * self.forward)
        return pose


@dataclass(frozen=True)
class Plan:
    """A path in latents, L of them in chunks of four, the photo's own first.

    Attributes:
        c2w: float64 (L, 4, 4), metres; still ones at the end fill the last chunk.
        labels: int64 (L,), action classes; of a still latent 0.
        latent_of: for every pose that was asked for, the latent that shows it.
    """

    c2w: Floats
    labels: NDArray[np.int64]
    latent_of: tuple[int, ...]

    @property
    def frames(self) -> int:
        """Frames of the video."""
        return LATENT_FRAMES * len(self.c2w) - (LATENT_FRAMES - 1)

    def frame_of(self, pose: int) -> int:
        """The video's frame for a pose that was asked for: the last one of its latent."""
        return LATENT_FRAMES * self.latent_of[pose]

    def viewmats(self, units_per_metre: float) -> Floats:
        """World-to-camera matrices in the model's units, float64 (L, 4, 4)."""
        c2w = self.c2w.copy()
        c2w[:, :3, 3] *= units_per_metre
        return np.asarray(np.linalg.inv(c2w))


def pitch_matrix(degrees: float) -> Floats:
    """Rotate about the x axis by `degrees`; positive looks upward. Returns float64 (3, 3)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def plan_path(poses: Floats, units_per_metre: float) -> Plan:
    """Snap a path to unit moves.

    What is left over of a turn or a move after rounding is owed to the next one about the same axis, so that many
    small steps add up. A step that both turns and moves is split: the turn comes first.

    Args:
        poses: float64 (N, 4, 4) c2w, metres, the identity first.
        units_per_metre: the model's units.

    Returns:
        The latents, with the poses that are really used.

    Raises:
        InvalidInputError: a step rolls, rises or sinks, which the model has no class for, or rounds to nothing.
    """
    metres = STEP_UNITS / units_per_metre
    c2w, labels, latent_of = [np.eye(4)], [0], [0]
    owed = np.zeros(4)
    for index, (before, after) in enumerate(pairwise(poses), start=1):
        wanted = _unit_moves(np.linalg.inv(before) @ after, metres, index)
        owed += wanted
        whole = np.rint(owed).astype(int)
        owed -= whole
        if np.abs(wanted).max() > 1e-6 and not whole.any():
            raise InvalidInputError(
                f"step {index} of the path is too small: this world moves in steps of {metres:g} m and turns in steps "
                f"of {STEP_DEG:g} degrees; ask for at least one"
            )
        for steps in _latents(*map(int, whole)):
            c2w.append(c2w[-1] @ steps.pose(metres))
            labels.append(steps.label)
        latent_of.append(len(c2w) - 1)
    missing = -len(c2w) % CHUNK_LATENTS
    return Plan(np.stack(c2w + c2w[-1:] * missing), np.array(labels + [0] * missing), tuple(latent_of))


def _unit_moves(relative: Floats, metres: float, index: int) -> Floats:
    """A step as (yaw, pitch, forward, right) in unit moves, not rounded; the rotation is yaw, then pitch."""
    rotation = relative[:3, :3]
    yaw = float(np.degrees(np.arctan2(rotation[0, 2], rotation[2, 2])))
    pitch = float(np.degrees(-np.arcsin(np.clip(rotation[1, 2], -1, 1))))
    rest = (yaw_matrix(yaw) @ pitch_matrix(pitch)).T @ rotation
    right, down, forward = rotation.T @ relative[:3, 3] / metres
    roll = float(np.degrees(np.arctan2(rest[1, 0], rest[0, 0]))) / STEP_DEG
    if max(abs(down), abs(roll)) > 0.5:
        raise InvalidInputError(f"step {index} of the path rolls, rises or sinks, which this world cannot do")
    return np.array([yaw / STEP_DEG, pitch / STEP_DEG, forward, right])


def _latents(yaw: int, pitch: int, forward: int, right: int) -> Sequence[Steps]:
    """Whole unit moves as latents: turns about one axis after the other, then moves, diagonal ones while both last."""
    turns = [Steps(yaw=_sign(yaw))] * abs(yaw) + [Steps(pitch=_sign(pitch))] * abs(pitch)
    moves = [
        Steps(forward=_sign(forward) * (k < abs(forward)), right=_sign(right) * (k < abs(right)))
        for k in range(max(abs(forward), abs(right)))
    ]
    return turns + moves


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
