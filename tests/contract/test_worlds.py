"""One suite for every world: what `teacher_service.worlds.base.World` promises."""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from teacher_service.paths import from_actions, from_poses
from teacher_service.photos import motorcycle
from teacher_service.scenes import anchor_pose, build_room
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint, World
from teacher_service.worlds.geometric import GeometricWorld
from teacher_service.worlds.renderer import RendererWorld
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import integrate
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.images import decode_map

SCENE = ScenePoint(7, 0)


@dataclass(frozen=True)
class Case:
    make: Callable[[], World]
    anchor: Photo | ScenePoint
    other: Photo | ScenePoint

    def spec(self, actions: str, **changes: object) -> ImagineSpec:
        return replace(ImagineSpec(self.anchor, from_actions(parse_actions(actions))), **changes)


CASES = {
    "renderer": Case(lambda: RendererWorld(min_clearance_m=0, min_object_area=0), SCENE, motorcycle()),
    "geometric": Case(lambda: GeometricWorld(), motorcycle(), SCENE),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def world(case: Case) -> World:
    return case.make()


def frames_of(world: World, spec: ImagineSpec) -> list[Frame]:
    return [imagined.frame for imagined in world.imagine(spec)]


def pixels(frame: Frame) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=np.float64)


def shift_between(before: Frame, after: Frame, reach: int) -> int:
    """By how many columns the middle of the picture moved to the right."""
    a, b = pixels(before), pixels(after)
    width = a.shape[1]
    middle = slice(width // 3, 2 * width // 3)
    moved = {
        by: np.square(b[:, middle.start + by : middle.stop + by] - a[:, middle]).mean() for by in range(-reach, reach)
    }
    return min(moved, key=lambda by: moved[by])


def test_it_says_what_it_is(case: Case, world: World) -> None:
    info = world.info
    assert re.fullmatch(r"[0-9a-f]{64}", info.digest)
    assert info.digest == case.make().info.digest
    assert info.name and info.description and info.licence
    assert info.takes_scenes is isinstance(case.anchor, ScenePoint)
    assert info.takes_photos is isinstance(case.anchor, Photo)


def test_there_is_one_frame_for_every_waypoint(case: Case, world: World) -> None:
    actions = "move forward 0.3 meters; turn left 8 degrees"
    spec = case.spec(actions)
    frames = frames_of(world, spec)
    assert len(frames) == len(spec.path) == 5
    for frame, waypoint in zip(frames, spec.path, strict=True):
        assert np.array_equal(frame.c2w, waypoint.c2w)
        assert (frame.actions_step, frame.key_frame) == (waypoint.actions_step, waypoint.key_frame)
        assert pixels(frame).shape == (frame.size[1], frame.size[0], 3)
        assert all(np.isfinite(value) for value in frame.scores.values())
    assert np.array_equal(frames[-1].c2w, integrate(parse_actions(actions))[-1])


def test_the_first_frame_is_the_anchor_s_own(case: Case, world: World) -> None:
    there = world.imagine(case.spec("turn left 5 degrees"))
    again = world.imagine(case.spec("move right 0.1 meters"))
    first = next(iter(there)).frame
    assert np.array_equal(first.c2w, np.eye(4))
    assert first.png == next(iter(again)).frame.png
    if isinstance(case.anchor, Photo):
        assert np.array_equal(pixels(first), case.anchor.pixels)


def test_the_same_request_gives_the_same_bytes(case: Case, world: World) -> None:
    spec = case.spec("move left 0.2 meters; turn right 5 degrees")
    for one, other in zip(world.imagine(spec), case.make().imagine(spec), strict=True):
        assert (one.frame.png, one.observed_png) == (other.frame.png, other.observed_png)
        assert (one.frame.objects, one.frame.scores) == (other.frame.objects, other.frame.scores)


@pytest.mark.parametrize(
    ("actions", "sign"),
    [
        ("turn left 5 degrees", 1),
        ("turn right 5 degrees", -1),
        ("move left 0.15 meters", 1),
        ("move right 0.15 meters", -1),
    ],
)
def test_the_picture_moves_against_the_camera(case: Case, world: World, actions: str, sign: int) -> None:
    frames = frames_of(world, case.spec(actions))
    focal = frames[0].intrinsics[0, 0]
    shift = shift_between(frames[0], frames[-1], reach=int(focal * 0.14))
    assert np.sign(shift) == sign
    if "turn" in actions:
        assert abs(shift) == pytest.approx(focal * np.tan(np.radians(5)), abs=2)


def test_poses_and_actions_are_the_same_path(case: Case, world: World) -> None:
    actions = parse_actions("move backward 0.1 meters; turn left 5 degrees")
    by_actions = frames_of(world, ImagineSpec(case.anchor, from_actions(actions)))
    by_poses = frames_of(world, ImagineSpec(case.anchor, from_poses(integrate(actions)[1:])))
    assert [frame.png for frame in by_actions if frame.key_frame] == [frame.png for frame in by_poses]


def test_observed_maps_have_the_frame_s_size_and_two_values(case: Case, world: World) -> None:
    for imagined in world.imagine(case.spec("turn left 5 degrees")):
        if imagined.observed_png:
            observed = decode_map(imagined.observed_png)
            assert observed.shape == imagined.frame.size[::-1]
            assert set(np.unique(observed)) == {0, 255}
        else:
            assert not world.info.generative or np.array_equal(imagined.frame.c2w, np.eye(4))


def test_the_other_kind_of_anchor_is_refused(case: Case, world: World) -> None:
    with pytest.raises(InvalidInputError, match="not"):
        frames_of(world, replace(case.spec("turn left 5 degrees"), anchor=case.other))


# What only one of the worlds does.


def test_the_renderer_names_what_it_shows() -> None:
    spec = replace(CASES["renderer"].spec("turn left 10 degrees"), with_instances=True, size=(96, 64))
    for frame in frames_of(CASES["renderer"].make(), spec):
        assert frame.size == (96, 64)
        instances = decode_map(frame.instances_png)
        assert {view.instance_id for view in frame.objects} == set(np.unique(instances)) - {0}
        for view in frame.objects:
            rows, columns = np.nonzero(instances == view.instance_id)
            assert view.area == pytest.approx(len(rows) / instances.size)
            assert view.box.x1 == round(columns.min() / 96 * 1000)
            assert view.box.y2 == round((rows.max() + 1) / 64 * 1000)


def test_a_path_into_a_wall_is_rejected_before_anything_is_rendered() -> None:
    spec = ImagineSpec(SCENE, from_actions(parse_actions("move forward 9 meters"), key_frames_only=True))
    frames = RendererWorld().imagine(spec)
    with pytest.raises(GateRejectedError) as caught:
        next(frames)
    assert caught.value.gate == "collision"
    assert caught.value.figure < 0.25


def test_a_path_through_furniture_is_rejected_though_its_ends_are_free() -> None:
    seed, metres = next(way for seed in range(100) for way in ways_through_furniture(seed))
    path = from_actions(parse_actions(f"move forward {metres} meters"), key_frames_only=True)
    with pytest.raises(GateRejectedError) as caught:
        list(RendererWorld().imagine(ImagineSpec(ScenePoint(seed, 0), path)))
    assert (caught.value.gate, caught.value.figure < 0) == ("collision", True)


def ways_through_furniture(seed: int) -> Iterator[tuple[int, float]]:
    """Yield (seed, metres) where going so far ahead ends well clear of everything, but not on the way there."""
    room = build_room(seed)
    start = anchor_pose(room, 0)
    metres = np.arange(0, 4, 0.1)
    clearance = room.clearance(start[0, 3] + metres * start[0, 2], start[2, 3] + metres * start[2, 2])
    blocked = np.minimum.accumulate(clearance) < -0.1
    yield from ((seed, float(m)) for m in np.round(metres[blocked & (clearance > 0.3)], 1))


def test_a_view_without_objects_is_rejected() -> None:
    spec = CASES["renderer"].spec("turn left 5 degrees")
    with pytest.raises(GateRejectedError) as caught:
        list(RendererWorld(min_object_area=0.9).imagine(spec))
    assert caught.value.gate == "empty_view"
    assert 0 < caught.value.figure < 0.9


def test_rooms_fall_out_of_a_small_cache_and_come_back_the_same() -> None:
    world, spec = RendererWorld(0, 0, cache=1), CASES["renderer"].spec("turn left 5 degrees")
    before = frames_of(world, spec)
    frames_of(world, replace(spec, anchor=ScenePoint(8, 0)))
    assert [frame.png for frame in frames_of(world, spec)] == [frame.png for frame in before]


def test_looking_away_from_the_photo_is_rejected() -> None:
    with pytest.raises(GateRejectedError) as caught:
        list(GeometricWorld().imagine(CASES["geometric"].spec("turn left 60 degrees")))
    assert caught.value.gate == "unobserved"
    assert caught.value.figure < 0.3


def test_a_photo_without_depth_can_turn_but_not_move() -> None:
    world, photo = GeometricWorld(), replace(motorcycle(), depth=None)
    spec = ImagineSpec(photo, from_actions(parse_actions("turn left 10 degrees")))
    assert len(frames_of(world, spec)) == 3
    with pytest.raises(InvalidInputError, match="depth"):
        list(world.imagine(replace(spec, path=from_actions(parse_actions("move left 0.1 meters")))))


def test_depth_that_is_unknown_everywhere_or_too_large_a_photo_is_refused() -> None:
    world, photo = GeometricWorld(), motorcycle()
    path = from_actions(parse_actions("turn left 5 degrees"))
    with pytest.raises(InvalidInputError, match="unknown"):
        list(world.imagine(ImagineSpec(replace(photo, depth=np.zeros((250, 370), np.float32)), path)))
    large = replace(photo, pixels=np.zeros((1025, 1024, 3), np.uint8), depth=None)
    with pytest.raises(InvalidInputError, match="scale it down"):
        list(world.imagine(ImagineSpec(large, path)))
