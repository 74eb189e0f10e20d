"""Paths: what the camera does, as the waypoints that a world renders."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from world2vlm.actions import Action
from world2vlm.cameras import MAX_STEP_DEG, MAX_STEP_M, Floats, integrate, subdivide
from world2vlm.errors import InvalidInputError

MAX_FRAMES = 512
MAX_METRES = 100.0


@dataclass(frozen=True)
class Waypoint:
    """One camera of a path.

    Attributes:
        c2w: float64 (4, 4), relative to the anchor camera.
        actions_step: the actions since the waypoint before; none where the path was given as poses.
        key_frame: at the end of an action (or the anchor).
    """

    c2w: Floats
    actions_step: tuple[Action, ...] = ()
    key_frame: bool = True


def from_actions(
    actions: Sequence[Action], key_frames_only: bool = False, max_frames: int = MAX_FRAMES
) -> tuple[Waypoint, ...]:
    """Return the anchor and the end of every action, and the steps (at most 0.2 m or 5 degrees) between them.

    Raises:
        InvalidInputError: no action, or a path of too many frames or metres.
    """
    # Before anything is as long as the request says.
    steps_of = [a.magnitude / (MAX_STEP_DEG if a.primitive.is_turn else MAX_STEP_M) for a in actions]
    frames = len(actions) if key_frames_only else sum(math.ceil(steps - 1e-9) for steps in steps_of)
    check_count(1 + frames, max_frames)
    ends = integrate(actions)
    waypoints = [Waypoint(ends[0])]
    for action, start, end in zip(actions, ends, ends[1:], strict=False):
        steps = [action] if key_frames_only else subdivide(action)
        poses = integrate(steps, start)
        waypoints += [Waypoint(pose, (step,), False) for step, pose in zip(steps[:-1], poses[1:], strict=False)]
        # The end itself, not the sum of its steps: key frames are the same with and without the steps between.
        waypoints.append(Waypoint(end, (steps[-1],)))
    return _check_metres(tuple(waypoints))


def from_poses(poses: Sequence[Floats], max_frames: int = MAX_FRAMES) -> tuple[Waypoint, ...]:
    """Return the anchor and every pose as a key frame.

    Raises:
        InvalidInputError: no pose, or a path of too many frames or metres.
    """
    check_count(1 + len(poses), max_frames)
    return _check_metres((Waypoint(np.eye(4)), *map(Waypoint, poses)))


def check_count(frames: int, max_frames: int) -> None:
    """Do nothing for a path of so many frames, its anchor's among them.

    Raises:
        InvalidInputError: too few or too many.
    """
    if frames < 2:
        raise InvalidInputError("a path needs at least one action or pose")
    if frames > max_frames:
        raise InvalidInputError(f"the path has {frames} frames; at most {max_frames} are allowed")


def positions_along(waypoints: Sequence[Waypoint], spacing: float) -> Iterator[Floats]:
    """Yield for each waypoint the points on the straight line that leads to it, at most `spacing` metres apart.

    Yields:
        positions, float64 (N, 3), the waypoint's own the last.
    """
    last = waypoints[0].c2w[:3, 3]
    for waypoint in waypoints:
        here = waypoint.c2w[:3, 3]
        count = max(1, int(np.ceil(np.linalg.norm(here - last) / spacing)))
        yield last + np.linspace(0, 1, count + 1)[1:, None] * (here - last)
        last = here


def _check_metres(waypoints: tuple[Waypoint, ...]) -> tuple[Waypoint, ...]:
    positions = np.stack([waypoint.c2w[:3, 3] for waypoint in waypoints])
    metres = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
    if not metres <= MAX_METRES:
        raise InvalidInputError(f"the path is {metres:g} m long; at most {MAX_METRES:g} m are allowed")
    return waypoints
