"""What the tests of the loop share: a room, a trajectory through it with its questions, a world without a service."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from teacher_service.paths import from_actions, from_poses
from teacher_service.worlds.base import ImagineSpec, ScenePoint
from teacher_service.worlds.renderer import RendererWorld
from trainer.labelling import label
from trainer.looped.cases import Start
from world2vlm.actions import Action, parse_actions
from world2vlm.bundles import Bundle, read_bundle, write_bundle
from world2vlm.cameras import integrate
from world2vlm.images import decode_image
from world2vlm.records import TaskRecord

SCENE, ANCHOR, SIZE = 7, 0, 64
ACTIONS = parse_actions("turn left 30 degrees; move forward 0.4 meters")
_RENDERER = RendererWorld(0, 0)


def write_room(bundles: Path) -> list[TaskRecord]:
    """Write the trajectory's bundle and return its questions, both ways through it."""
    spec = ImagineSpec(ScenePoint(SCENE, ANCHOR), from_actions(ACTIONS, key_frames_only=True), size=(SIZE, SIZE))
    frames = tuple(_RENDERER.imagine(spec))
    params = {"world": "renderer", "scene_seed": SCENE, "anchor": ANCHOR}
    return label(read_bundle(write_bundle(bundles, Bundle(f"room_{SCENE}", "000", frames, params))), seed=0)


def question(records: Sequence[TaskRecord], task: str, first: int, second: int) -> TaskRecord:
    """The first question of a task about two of the trajectory's frames."""
    return next(r for r in records if r.task_type == task and r.meta["frames"] == [first, second])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def records(bundles: Path) -> list[TaskRecord]:
    return write_room(bundles)


class Room:
    """`trainer.looped.World` without a service in between."""

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        path = from_poses(list(integrate(actions, start.c2w)[1:]))
        spec = ImagineSpec(ScenePoint(start.scene, start.anchor), path, size=start.size)
        return [decode_image(frame.png) for frame in _RENDERER.imagine(spec)][1:]
