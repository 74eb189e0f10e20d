from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.teach.panoramas import FOLDER, load_panorama
from benchmarks.teach.sabotage import Turntable
from teacher_service.app import make_teacher
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.there_and_back import ThereAndBack
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, Photo
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.errors import GateRejectedError
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

LIMITS = GateSettings()
PLACE = Turntable(load_panorama(FOLDER / "interior.jpg"))
SPEC = ImagineSpec(Photo(PLACE.shoot(np.eye(4)), PLACE.intrinsics), from_actions(parse_actions("turn left 15 degrees")))


class Turning:
    """A real photograph seen by a camera that turns; from view `forgets` on it shows nothing, and at `ends` it ends."""

    info = WorldInfo("turning", "", True, False, False, True, "CC0-1.0", True, "")

    def __init__(self, forgets: int = 99, ends: int = 99) -> None:
        self._forgets, self._ends = forgets, ends

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        for index, waypoint in enumerate(spec.path[: self._ends]):
            pixels = PLACE.shoot(waypoint.c2w) if index < self._forgets else np.full((128, 128, 3), 90, np.uint8)
            yield Frame(encode_png(pixels), waypoint.c2w, PLACE.intrinsics, (128, 128))


def test_the_way_there_is_passed_on_with_how_well_it_was_found_again() -> None:
    frames = list(ThereAndBack(Turning(), LIMITS).imagine(SPEC))
    assert [each.png for each in frames] == [each.png for each in Turning().imagine(SPEC)]
    assert len(frames) == 4
    assert all(each.scores["gate_cycle_psnr_db"] > 60 for each in frames)


def test_a_world_that_forgets_what_it_showed_is_rejected() -> None:
    with pytest.raises(
        GateRejectedError, match=r"frame 0: a place seen again looks as before within \d+\.\d dB"
    ) as caught:
        list(ThereAndBack(Turning(forgets=5), LIMITS).imagine(SPEC))
    assert caught.value.gate == "cycle"


def test_a_world_that_was_cancelled_on_the_way_sends_nothing() -> None:
    assert list(ThereAndBack(Turning(ends=5), LIMITS).imagine(SPEC)) == []


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_setting_turns_it_on(is_asked: bool) -> None:
    options = {"geometric": {"depth_model": "none", "inpaint_model": "none"}}
    settings = TeacherSettings.load(world_options=options, gates={"there_and_back": is_asked})
    anchor, *others = make_teacher(settings).imagine("geometric", SPEC)
    assert [verdict.name for verdict in anchor.gates].count("cycle") == 1 + is_asked
    for each in others:
        assert {verdict.name for verdict in each.gates} >= ({"cycle", "yaw"} if is_asked else {"yaw"})
        assert ("gate_cycle_psnr_db" in each.scores) is is_asked
