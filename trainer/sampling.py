"""Which trajectories a round asks the teacher for: a function of the round's seed, the scene and two counters alone."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from world2vlm.actions import Action, Primitive

ACTIONS = 3
MAX_CANDIDATES = 16
CANDIDATES_PER_ANCHOR = 4
MAX_NET_YAW_DEG = 60

_MOVES_DM = range(2, 13, 2)
_TURNS_DEG = range(10, 61, 10)
_AXES = (
    (Primitive.FORWARD, Primitive.BACKWARD),
    (Primitive.LEFT, Primitive.RIGHT),
    (Primitive.TURN_LEFT, Primitive.TURN_RIGHT),
)
_YAW = 2


@dataclass(frozen=True)
class Candidate:
    """One trajectory to try: from which of the scene's anchor poses, and how the camera moves."""

    anchor: int
    actions: tuple[Action, ...]


def candidates(seed: int, scene: int | str, trajectory: int, trajectories: int) -> Iterator[Candidate]:
    """Yield what to try for one trajectory, in order, until a gate accepts one.

    Args:
        seed: the round's.
        scene: the scene's seed, or a photograph's digest.
        trajectory: index of the trajectory within the scene.
        trajectories: how many trajectories the scene gets. Each has an anchor of its own and moves on to a fresh one
            after `CANDIDATES_PER_ANCHOR` rejections.
    """
    for number in range(MAX_CANDIDATES):
        rng = random.Random(f"{seed}/{scene}/{trajectory}/{number}")
        yield Candidate(trajectory + trajectories * (number // CANDIDATES_PER_ANCHOR), sample_actions(rng))


def sample_actions(rng: random.Random) -> tuple[Action, ...]:
    """Draw three actions: 0.2-1.2 m in steps of 0.2, 10-60 degrees in steps of 10.

    Neighbours lie on different axes (they would merge), there are both turns and moves, and the camera never looks
    more than 60 degrees away from where the anchor looks.
    """
    while True:
        axes = [rng.randrange(len(_AXES)) for _ in range(ACTIONS)]
        if _YAW not in axes or any(a == b for a, b in pairwise(axes)):
            continue
        actions = tuple(_draw(axis, rng) for axis in axes)
        if _stays_ahead(actions):
            return actions


def _draw(axis: int, rng: random.Random) -> Action:
    magnitude = float(rng.choice(_TURNS_DEG)) if axis == _YAW else rng.choice(_MOVES_DM) / 10
    return Action(rng.choice(_AXES[axis]), magnitude)


def _stays_ahead(actions: tuple[Action, ...]) -> bool:
    yaw = 0.0
    for action in actions:
        if action.primitive.is_turn:
            yaw += action.magnitude if action.primitive is Primitive.TURN_RIGHT else -action.magnitude
        if abs(yaw) > MAX_NET_YAW_DEG:
            return False
    return True
