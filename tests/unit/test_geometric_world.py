"""The geometric world with its models: estimated depth, painted holes, what it keeps and what it refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from teacher_service.paths import from_actions
from teacher_service.photos import motorcycle
from teacher_service.worlds import geometric, surfaces
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from teacher_service.worlds.warp import Relief
from tests.depth_kit import depth_anything
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.images import decode_image, decode_map
from world2vlm.settings import TeacherSettings

WALL = Photo(
    np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8),
    intrinsics_from_fov(60, 64, 48),
    np.full((48, 64), 2.0, dtype=np.float32),
)
PLAIN = GeometricOptions(depth_model="none", inpaint_model="none")


def spec(photo: Photo, actions: str, **changes: object) -> ImagineSpec:
    return replace(ImagineSpec(photo, from_actions(parse_actions(actions))), **changes)


def frames_of(world: GeometricWorld, asked: ImagineSpec) -> list[Frame]:
    return list(world.imagine(asked))


def test_without_depth_the_camera_moves_by_an_estimate_and_says_so() -> None:
    photo = replace(motorcycle(), depth=None)
    frames = frames_of(GeometricWorld(), spec(photo, "move right 0.2 meters"))
    assert [frame.scores["depth_estimated"] for frame in frames] == [1, 1]
    assert 0.5 < frames[-1].scores["observed_share"] < 1
    given = frames_of(GeometricWorld(), spec(motorcycle(), "move right 0.2 meters"))
    assert [frame.scores["depth_estimated"] for frame in given] == [0, 0]
    assert frames[-1].png != given[-1].png


def test_a_turn_needs_no_depth_and_so_no_estimate() -> None:
    photo = replace(WALL, depth=None)
    frames = frames_of(GeometricWorld(options=PLAIN), spec(photo, "turn left 5 degrees"))
    assert frames[-1].scores["depth_estimated"] == 0
    with pytest.raises(InvalidInputError, match="set depth_model"):
        frames_of(GeometricWorld(options=PLAIN), spec(photo, "move left 0.1 meters"))


def test_holes_are_painted_by_the_seed_and_the_rest_is_the_photo_s() -> None:
    world, asked = GeometricWorld(), spec(WALL, "turn left 10 degrees")
    plain = list(GeometricWorld(options=PLAIN).imagine(asked))[-1]
    first, again, other = (list(world.imagine(replace(asked, seed=seed)))[-1] for seed in (0, 0, 1))
    assert (first.png, first.observed_png) == (again.png, again.observed_png)
    assert first.png != other.png
    seen = decode_map(first.observed_png) > 0
    smooth, painted = (np.asarray(decode_image(each.png)) for each in (plain, first))
    assert np.array_equal(painted[seen], smooth[seen])
    assert not np.array_equal(painted[~seen], smooth[~seen])


def test_one_photo_is_encoded_once_for_all_of_its_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []

    class Counted(Relief):
        def __init__(self, pixels: NDArray[np.uint8], *rest: object) -> None:
            made.append(pixels.shape)
            super().__init__(pixels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(surfaces, "Relief", Counted)
    world = GeometricWorld(options=replace(PLAIN, photo_cache=2))
    for actions in ("turn left 5 degrees", "move left 0.1 meters", "turn right 5 degrees"):
        frames_of(world, spec(WALL, actions))
    assert len(made) == 1
    for change in ({"depth": WALL.depth + 1}, {"intrinsics": WALL.intrinsics * 1.1}, {"pixels": WALL.pixels // 2}):
        frames_of(world, spec(replace(WALL, **change), "turn left 5 degrees"))
    assert len(made) == 4
    frames_of(world, spec(WALL, "turn left 5 degrees"))
    assert len(made) == 5


def cancelled_after(calls: int) -> Callable[[], bool]:
    left = iter([False] * calls)
    return lambda: next(left, True)


# Asked before the photo is encoded, before each frame, and before each of the four steps of its holes' diffusion.
@pytest.mark.parametrize(("calls", "frames"), [(0, 0), (1, 0), (2, 1), (4, 1), (7, 2), (100, 3)])
def test_cancelling_ends_the_frames_early(calls: int, frames: int) -> None:
    asked = spec(WALL, "turn left 10 degrees", is_cancelled=cancelled_after(calls))
    assert len(frames_of(GeometricWorld(), asked)) == frames


@pytest.mark.parametrize(("metres", "passes"), [(1.8, True), (1.95, False), (2.4, False)])
def test_a_path_through_what_the_photo_shows_is_rejected(metres: float, passes: bool) -> None:
    asked = spec(WALL, f"move forward {metres} meters")
    if passes:
        assert len(frames_of(GeometricWorld(options=PLAIN), asked)) == len(asked.path)
        return
    with pytest.raises(GateRejectedError, match="obstacle") as caught:
        next(iter(GeometricWorld(options=PLAIN).imagine(asked)))
    assert caught.value.gate == "collision"
    # The last of its steps of at most 0.2 m is the one that comes too close.
    assert caught.value.figure < 0.1
    assert len(frames_of(GeometricWorld(min_observed_share=0, min_clearance_m=0, options=PLAIN), asked)) == len(
        asked.path
    )


@pytest.mark.parametrize(
    ("shape", "reason"), [((40, 121), "panorama"), ((121, 40), "panorama"), ((15, 15), "16"), ((1025, 1024), "scale")]
)
def test_photos_of_no_use_are_refused(shape: tuple[int, int], reason: str) -> None:
    photo = Photo(np.zeros((*shape, 3), np.uint8), intrinsics_from_fov(54, shape[1], shape[0]))
    with pytest.raises(InvalidInputError, match=reason):
        frames_of(GeometricWorld(options=PLAIN), spec(photo, "turn left 5 degrees"))


def made(**options: object) -> GeometricWorld:
    return geometric.make(TeacherSettings(world_options={"geometric": options}))


def test_the_models_are_options_and_part_of_the_digest() -> None:
    digests = {
        made(depth_model=depth, inpaint_model=inpaint).info.digest
        for depth in ("tiny", "none")
        for inpaint in ("tiny", "none")
    }
    assert len(digests) == 4
    assert (
        made().info.digest == made(depth_model="tiny", inpaint_model="tiny").info.digest == GeometricWorld().info.digest
    )
    with pytest.raises(InvalidInputError, match="depht_model"):
        made(depht_model="tiny")
    with pytest.raises(InvalidInputError, match="photo_cache"):
        made(photo_cache=0)


def test_the_terms_of_named_models_are_not_taken_for_granted(tmp_path: Path) -> None:
    name = depth_anything(tmp_path / "model")
    unread, read = (made(depth_model=name, terms_checked=checked).info for checked in (False, True))
    assert (unread.outputs_may_train, unread.outputs_may_be_sold) == (False, False)
    assert name in unread.terms and "terms_checked" in unread.terms
    assert (read.outputs_may_train, read.outputs_may_be_sold, read.terms) == (True, True, "")
    assert name in read.licence
    assert unread.digest != GeometricWorld().info.digest


def test_a_named_depth_model_is_asked(tmp_path: Path) -> None:
    world = made(depth_model=depth_anything(tmp_path / "model"), inpaint_model="none")
    frames = frames_of(world, spec(replace(motorcycle(), depth=None), "move right 0.02 meters"))
    assert frames[-1].scores["depth_estimated"] == 1
