"""Transitions through rooms, with what is really there after them: right, and as it would be after wrong ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.rooms import find_trajectories
from teacher_service.scenes import SceneRenderer, anchor_pose, build_room
from teacher_service.worlds.base import Photo
from teacher_service.worlds.renderer import FOV_DEG, RendererWorld
from world2vlm.actions import Action
from world2vlm.cameras import Floats, integrate, intrinsics_from_fov

_EACH = 3
RIGHT = "right"


@dataclass(frozen=True)
class Transition:
    """One or two actions from an anchor.

    Attributes:
        photo: what the anchor's camera sees, with true depth.
        actions: what it does.
        views: what is seen in the end, uint8 (side, side, 3): `RIGHT` after `actions`, and after staying where it is,
            after the opposite, half, and one and a half of them.
        depth: what the right view's depth is, metres (side, side).
    """

    photo: Photo
    actions: tuple[Action, ...]
    views: Mapping[str, NDArray[np.uint8]]
    depth: NDArray[np.float32]


def transitions(count: int, side: int) -> Iterator[Transition]:
    """Yield so many: the beginnings of trajectories that a round would ask for; every third has two actions."""
    rooms = -(-count // _EACH) + 1
    found = find_trajectories(RendererWorld(cache=rooms), rooms, _EACH)
    intrinsics = intrinsics_from_fov(FOV_DEG, side, side)
    for index, each in enumerate(found[:count]):
        room = build_room(each.scene)
        renderer, start = SceneRenderer(room), anchor_pose(room, each.candidate.anchor)
        before = renderer.render(start, intrinsics, side, side)
        actions = each.candidate.actions[: 2 if index % 3 == 2 else 1]
        after = {
            name: renderer.render(start @ pose, intrinsics, side, side) for name, pose in _candidates(actions).items()
        }
        views = {name: view.rgb for name, view in after.items()}
        yield Transition(Photo(before.rgb, intrinsics, before.depth), actions, views, after[RIGHT].depth)


def _candidates(actions: Sequence[Action]) -> dict[str, Floats]:
    opposite = [replace(action, primitive=action.primitive.opposite) for action in actions]
    changed = {RIGHT: actions, "opposite": opposite, "half": _scaled(actions, 0.5), "more": _scaled(actions, 1.5)}
    return {"stays": np.eye(4)} | {name: integrate(each)[-1] for name, each in changed.items()}


def _scaled(actions: Sequence[Action], factor: float) -> list[Action]:
    return [replace(action, magnitude=action.magnitude * factor) for action in actions]
