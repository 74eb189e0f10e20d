"""Photos without depth, whose moves are judged by an estimated one where the setting says so."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.teach.sabotage import RoomPlace
from teacher_service import app
from teacher_service.depth import TinyDepth
from teacher_service.gates.keeper import Gatekeeper
from teacher_service.gates.views import View
from teacher_service.paths import from_actions
from teacher_service.service import Teacher
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.depths import Depths
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.settings import TeacherSettings

PLACE = RoomPlace(900)
PHOTO = Photo(PLACE.shoot(np.eye(4)), PLACE.intrinsics)
PATH = from_actions(parse_actions("move right 0.4 meters"))


class Short:
    """The geometric world, which goes by its own depth a share of the way only, and says that it went all of it."""

    def __init__(self, share: float) -> None:
        self._world, self._share = GeometricWorld(options=GeometricOptions(inpaint_model="none")), share
        self.info = self._world.info

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        path = tuple(replace(waypoint, c2w=shortened(waypoint.c2w, self._share)) for waypoint in spec.path)
        for waypoint, frame in zip(spec.path, self._world.imagine(replace(spec, path=path)), strict=True):
            yield replace(frame, c2w=waypoint.c2w)


class Counting:
    """The tiny network, and the pictures that it was asked about."""

    def __init__(self) -> None:
        self._network = TinyDepth()
        self.digest = self._network.digest
        self.asked: list[NDArray[np.uint8]] = []

    def estimate(self, pixels: NDArray[np.uint8], intrinsics: Floats) -> NDArray[np.float32]:
        self.asked.append(pixels)
        return self._network.estimate(pixels, intrinsics)


def shortened(c2w: Floats, share: float) -> Floats:
    made = c2w.copy()
    made[:3, 3] *= share
    return made


def teacher(monkeypatch: pytest.MonkeyPatch, share: float, **settings: Any) -> Teacher:
    monkeypatch.setattr(app, "make_worlds", lambda settings: [Short(share)])
    return app.make_teacher(TeacherSettings.load(**settings))


def failed(frames: Iterator[Frame]) -> set[str]:
    return {verdict.name for each in frames for verdict in each.gates if not verdict.passed}


@pytest.mark.parametrize(
    ("share", "gates", "expected"),
    [
        (0.75, {}, set()),
        (0.75, {"estimate_depth": True}, {"reprojection"}),
        (1.0, {"estimate_depth": True}, set()),
    ],
)
def test_a_move_of_three_quarters_fails_where_depth_is_estimated(
    share: float, gates: dict[str, Any], expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = list(teacher(monkeypatch, share, gates=gates).imagine("", ImagineSpec(PHOTO, PATH)))
    assert len(frames) == len(PATH)
    assert failed(iter(frames)) == expected
    judged = {verdict.name for each in frames for verdict in each.gates}
    assert ("reprojection" in judged) is bool(gates) and ("direction" in judged) is not bool(gates)


def test_depth_from_the_request_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    # All is 1.6 times as far as the network thinks: by its depth the moves look far too short.
    depth = 1.6 * TinyDepth().estimate(PHOTO.pixels, PHOTO.intrinsics)
    spec = ImagineSpec(replace(PHOTO, depth=depth), PATH)
    assert not failed(teacher(monkeypatch, 1.0, gates={"estimate_depth": True}).imagine("", spec))
    estimator = Counting()
    keeper = Gatekeeper(replace(PHOTO, depth=depth), estimate=Depths(estimator).of)
    assert "reprojection" in judge_all(keeper) and not estimator.asked


def judge_all(keeper: Gatekeeper, text: str = "move right 0.2 meters") -> set[str]:
    views = [View(PLACE.shoot(each.c2w), PLACE.intrinsics, each.c2w) for each in from_actions(parse_actions(text))]
    return {verdict.gate for view in views for verdict in keeper.judge(view)}


def test_a_photo_is_estimated_once_and_not_before_the_camera_moved() -> None:
    estimator = Counting()
    depths = Depths(estimator)
    keeper = Gatekeeper(PHOTO, estimate=depths.of)
    assert "yaw" in judge_all(keeper, "turn left 10 degrees") and not estimator.asked
    for path in ("move right 0.2 meters", "move left 0.2 meters"):
        assert "reprojection" in judge_all(Gatekeeper(PHOTO, estimate=depths.of), path)
    assert len(estimator.asked) == 1
    depths.of(Photo(PHOTO.pixels[::-1], PHOTO.intrinsics))
    assert len(estimator.asked) == 2


def test_a_model_that_is_none_or_not_there_is_refused_where_it_is_needed() -> None:
    def make(model: str, **gates: bool) -> Teacher:
        return app.make_teacher(TeacherSettings.load(worlds=("renderer",), depth_model=model, gates=gates))

    assert make("none") and make("/no/such/folder")
    with pytest.raises(InvalidInputError, match="estimate_depth needs a depth_model"):
        make("none", estimate_depth=True)
    with pytest.raises(NotFoundError, match="/no/such/folder"):
        make("/no/such/folder", estimate_depth=True)


def test_frames_that_are_kept_are_not_those_of_another_depth_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [teacher(monkeypatch, 1.0, gates={"estimate_depth": each}).identity("geometric") for each in (True, False)]
    assert TinyDepth().digest in made[0] and TinyDepth().digest not in made[1]
