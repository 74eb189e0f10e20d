"""Imagining for rounds: what a gate rejects is kept aside, and nothing is imagined that nobody may learn from."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher_service.paths import from_actions
from trainer.imagining import Imagined, ImaginePlan, Imaginer, key_frames
from trainer.labelling import balance
from trainer.sources import AnchorKind, Room
from world2vlm.actions import Action, parse_actions
from world2vlm.bundles import REJECTED, Bundle, Frame, GateVerdict, read_bundle
from world2vlm.cameras import Floats, integrate, intrinsics_from_fov
from world2vlm.datasets import publish_dataset
from world2vlm.errors import GateRejectedError, PreconditionError
from world2vlm.images import encode_png
from world2vlm.licences import Policy, stamp
from world2vlm.store import Store
from world2vlm.worlds import WorldInfo

FREE = WorldInfo("free", "Nothing is asked", True, False, True, False, "Apache-2.0", True, "ab" * 32)
PLAN = ImaginePlan(seed=7, world="free", trajectories=2, size=32)
BLURRED = GateVerdict("sharpness", 0.2, False, "frame 1 is blurred")


class Painter:
    """A teacher whose frames are flat; it fails every trajectory's first candidate."""

    def __init__(self, info: WorldInfo = FREE, *, raises: bool = False) -> None:
        self.info, self.raises = info, raises
        self.asked: list[bool] = []

    def world(self, name: str, kind: AnchorKind) -> Mapping[str, Any]:
        return stamp(self.info)

    def imagine(
        self, world: str, scene: int, anchor: int, actions: Sequence[Action], size: int, keep_rejected: bool
    ) -> list[Frame]:
        self.asked.append(keep_rejected)
        bad = len(self.asked) % 2 == 1
        if bad and (self.raises or not keep_rejected):
            raise GateRejectedError(BLURRED.name, BLURRED.figure, BLURRED.reason)
        passed = GateVerdict("sharpness", 0.9, True)
        poses = integrate(actions)
        steps = [(), *((action,) for action in actions)]
        return [
            Frame(
                encode_png(np.full((size, size, 3), 40 * index, np.uint8)),
                pose,
                intrinsics_from_fov(90, size, size),
                (size, size),
                step,
                gates=(BLURRED if bad and index == 1 else passed,),
            )
            for index, (pose, step) in enumerate(zip(poses, steps, strict=True))
        ]

    def imagine_photo(
        self, world: str, png: bytes, intrinsics: Floats, actions: Sequence[Action], keep_rejected: bool
    ) -> list[Frame]:
        raise AssertionError("nobody asked for a photograph")


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return Store(url, tmp_path / "cache")


def aside(store: Store) -> list[Bundle]:
    return [read_bundle(store.local(path).parent) for path in store.list("rejected") if path.endswith("traj.json")]


def imagine(store: Store, teacher: Painter, **settings: Any) -> Imagined:
    return Imaginer(teacher, store, 1.0, **settings).imagine(PLAN, [Room(3)])


def test_rejected_trajectories_are_kept_aside_with_the_reason_and_never_labelled(store: Store) -> None:
    imagined = imagine(store, Painter())
    assert len(imagined.bundles) == 2 and imagined.rejected == {"sharpness": 2}
    kept = aside(store)
    assert len(kept) == 2
    for bundle in kept:
        assert bundle.params[REJECTED] == {"gate": "sharpness", "figure": 0.2, "message": "frame 1 is blurred"}
        assert bundle.params["world"] == "free" and bundle.params["terms"]
        assert bundle.frames[1].gates == (BLURRED,)
        folder = store.local(f"rejected/{bundle.relative_path.as_posix()}")
        assert (folder / bundle.frames[1].path).read_bytes().startswith(b"\x89PNG")
    shown = {image for record in imagined.records for image in record.images}
    rejected = {bundle.relative_path.as_posix() for bundle in kept}
    assert not rejected & set(imagined.bundles)
    assert not any(image.startswith(tuple(rejected)) for image in shown)
    assert imagined.worlds == (stamp(FREE),)


def test_what_a_world_itself_refuses_is_kept_without_frames(store: Store) -> None:
    imagined = imagine(store, Painter(raises=True))
    assert imagined.rejected == {"sharpness": 2}
    kept = aside(store)
    assert [(bundle.frames, bundle.params[REJECTED]["gate"]) for bundle in kept] == [((), "sharpness")] * 2


def test_keeping_may_be_turned_off(store: Store) -> None:
    teacher = Painter()
    imagined = imagine(store, teacher, keep_rejected=False)
    assert imagined.rejected == {"sharpness": 2} and len(imagined.bundles) == 2
    assert teacher.asked == [False] * 4
    assert not store.exists("rejected")


def test_terms_do_not_change_a_bundle_s_name(store: Store, tmp_path: Path) -> None:
    first = imagine(store, Painter())
    restricted = Painter(replace(FREE, terms="Say where it is from."))
    elsewhere = Store(f"memory://{uuid.uuid4().hex}", tmp_path / "other")
    again = imagine(elsewhere, restricted, policy=Policy(frozenset({"free"})))
    assert (again.bundles, again.records) == (first.bundles, first.records)


def test_rooms_are_imagined_as_ever(store: Store) -> None:
    """Names and records as they were before photographs came: old stores hold them, and rounds go on from there."""
    imagined = Imaginer(Painter(), store, 1.0).imagine(PLAN, [Room(3), Room(8)])
    assert imagined.bundles == (
        "scenes/room_3/traj_000-47ebf2dc",
        "scenes/room_3/traj_001-2cd9fa28",
        "scenes/room_8/traj_000-3f8ff6db",
        "scenes/room_8/traj_001-7d757219",
    )
    traj = store.read_bytes(f"bundles/{imagined.bundles[0]}/traj.json")
    assert hashlib.sha256(traj).hexdigest() == "8ed61aee519b267bd17926f44e75fe6e6ab816fd5c281967dd4df2ae0b296dff"
    dataset = publish_dataset(store, {"train": balance(imagined.records, 7)}, {})
    assert dataset.digest == "2ade50b6ae8c3f9877e4109f18d14b49555024de0957493bd584bb1d5804bb5f"


def test_key_frames_stand_for_the_steps_that_led_to_them() -> None:
    actions = parse_actions("move forward 0.5 meters; turn left 12 degrees; move left 0.7 meters")
    png, k = encode_png(np.zeros((16, 16, 3), np.uint8)), np.eye(3)
    frames = [
        Frame(png, waypoint.c2w, k, (16, 16), waypoint.actions_step, waypoint.key_frame)
        for waypoint in from_actions(actions)
    ]
    kept = key_frames(frames)
    assert len(frames) == 11 and [frame.actions_step for frame in kept] == [(), *((action,) for action in actions)]
    assert all(np.array_equal(frame.c2w, pose) for frame, pose in zip(kept, integrate(actions), strict=True))
    assert key_frames(kept) == kept


def test_nothing_is_imagined_that_nobody_may_learn_from(store: Store) -> None:
    teacher = Painter(replace(FREE, name="svc", outputs_may_train=False))
    with pytest.raises(PreconditionError, match="'svc'"):
        imagine(store, teacher)
    assert teacher.asked == [] and store.list() == []
