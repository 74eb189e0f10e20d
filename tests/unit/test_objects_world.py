"""A world of photos with a detector in it, and what the labelling makes of a photo's bundle."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from teacher_service import app
from teacher_service.objects import Detection, ObjectFilters, WithObjects
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint, Warmable
from teacher_service.worlds.depths import Depths
from tests.detector_kit import GivenDetections
from trainer.label_files import label_folders
from world2vlm.actions import parse_actions
from world2vlm.bundles import Bundle, Frame, write_bundle
from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.images import encode_png
from world2vlm.licences import STRICT, stamp
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

SIZE = (120, 90)
K = intrinsics_from_fov(90, *SIZE)
PIXELS = np.full((*SIZE[::-1], 3), 90, np.uint8)
LAMP = Detection("lamp", 0.9, (40.0, 30.0, 60.0, 60.0))


class StillWorld:
    """Gives the anchor's own picture for every waypoint; what moves is not its business here."""

    info = WorldInfo("still", "the photo again", True, False, True, True, "Apache-2.0", True, "0" * 64)

    def imagine(self, spec: ImagineSpec):  # type: ignore[no-untyped-def]
        for waypoint in spec.path:
            frame = Frame(encode_png(PIXELS), waypoint.c2w, K, SIZE, waypoint.actions_step, waypoint.key_frame)
            yield replace(frame, observed_png=b"mask")


class Flat:
    """A depth model that sees a wall two metres away."""

    digest = ""

    def estimate(self, pixels: NDArray[np.uint8], intrinsics: Floats) -> NDArray[np.float32]:
        return np.full(pixels.shape[:2], 2.0, np.float32)


def imagine(
    anchor: Photo | ScenePoint, text: str, detections: list[list[Detection]], estimator: Flat | None = None
) -> list[Frame]:
    path = from_actions(parse_actions(text), key_frames_only=True)
    world = WithObjects(
        StillWorld(), GivenDetections(detections), ObjectFilters(), Depths(estimator) if estimator else None
    )
    assert world.info.name == "still"
    return list(world.imagine(ImagineSpec(anchor, path)))


def test_frames_of_a_photo_come_with_objects() -> None:
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    # At two metres 0.2 m are 6 pixels.
    moved = replace(LAMP, box=(34.0, 30.0, 54.0, 60.0))
    first, second = imagine(Photo(PIXELS, K, depth), "move right 0.2 meters", [[LAMP], [moved]])
    assert [view.instance_id for view in (*first.objects, *second.objects)] == [1, 1]
    assert second.objects[0].box.x1 == round(34 / 120 * 1000)
    assert second.observed_png == b"mask"


def test_a_bundle_can_tell_by_the_digest_who_found_the_objects() -> None:
    first, same, other = (GivenDetections([]) for _ in range(3))
    other.digest = "another"
    infos = [WithObjects(StillWorld(), detector, ObjectFilters()).info for detector in (first, same, other)]
    assert infos[0] == infos[1] and len({each.digest for each in (*infos, StillWorld().info)}) == 3
    assert replace(infos[2], digest="") == replace(StillWorld().info, digest="")


def test_without_depth_only_turns_or_estimated_depth_have_objects() -> None:
    photo = Photo(PIXELS, K)
    assert all(each.objects for each in imagine(photo, "turn left 5 degrees", [[LAMP], [LAMP]]))
    assert not any(each.objects for each in imagine(photo, "move right 0.2 meters", []))
    assert all(each.objects for each in imagine(photo, "move right 0.2 meters", [[LAMP], [LAMP]], Flat()))


@pytest.mark.parametrize(("model", "is_followed"), [("tiny", True), ("none", False)])
def test_the_teacher_s_depth_model_follows_objects_where_a_photo_has_no_depth(
    model: str, is_followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "make_worlds", lambda settings: [StillWorld()])
    monkeypatch.setattr(app, "make_detector", lambda options: GivenDetections([[LAMP], [LAMP]]))
    teacher = app.make_teacher(TeacherSettings.load(depth_model=model, with_gates=False))
    path = from_actions(parse_actions("move right 0.05 meters"))
    first, second = teacher.imagine("still", ImagineSpec(Photo(PIXELS, K), path))
    assert bool(first.objects) is is_followed and bool(second.objects) is is_followed


def test_a_wrapped_world_is_warmed_up() -> None:
    class ColdWorld(StillWorld):
        warmed = 0

        def warm(self) -> None:
            self.warmed += 1

    world = ColdWorld()
    wrapped = WithObjects(world, GivenDetections([]), ObjectFilters())
    assert isinstance(wrapped, Warmable)
    wrapped.warm()
    assert world.warmed == 1
    WithObjects(StillWorld(), GivenDetections([]), ObjectFilters()).warm()


def test_frames_of_a_scene_stay_as_they_are() -> None:
    assert not any(each.objects for each in imagine(ScenePoint(1, 0), "move right 0.2 meters", []))


def test_photos_without_objects_are_asked_about_motion_alone_and_with_objects_about_them_too(tmp_path: Path) -> None:
    params = {**stamp(StillWorld.info)}
    for name, detections in (("without", [[], []]), ("with", [[LAMP], [LAMP]])):
        made = imagine(Photo(PIXELS, K), "turn left 5 degrees", detections)
        write_bundle(tmp_path / name, Bundle("photo", "1", tuple(made), params))
    without, with_ = (
        {record.task_type for record in label_folders([tmp_path / name], tmp_path, 0, STRICT).records}
        for name in ("without", "with")
    )
    assert without == {"A2", "A4"}
    assert with_ >= {"A2", "A4", "D1", "D3"}
