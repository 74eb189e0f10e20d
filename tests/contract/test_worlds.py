"""One suite for every world: what `teacher_service.worlds.base.World` promises. A new world is a line of `CASES`.

The diffusers worlds run as tiny pipelines with random weights, so for `sana_wm` nothing that its pictures show can be
right: poses, intrinsics, frames, seeds and cancelling are tested for it like for all, where the camera looks is not.
`wan_vace_warp` has random weights, too, but pastes what its geometry shows, and that is tested. `svc` and
`hy_worldplay` run as they do, in processes of their own, around stand-ins for their packages, which show the photo as a
painting two metres ahead: where the camera looks is tested through their real conversions, and nothing of what the
models make.
"""

import io
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from teacher_service.gates.keeper import Gatekeeper
from teacher_service.gates.views import View
from teacher_service.paths import from_actions, from_poses
from teacher_service.photos import motorcycle
from teacher_service.remote import RemoteWorld
from teacher_service.scenes import SceneRenderer, anchor_pose, build_room
from teacher_service.worlds import hy_worldplay, sana_wm, svc, wan_vace_warp
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint, World
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from teacher_service.worlds.renderer import FOV_DEG, RendererWorld
from teacher_service.worlds.warp import Relief
from tests.remote_kit import PLANE_UNITS, make_world, options
from tests.worlds_kit import settings, tiny_sana, tiny_wan
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats, integrate, intrinsics_from_fov, pixel_rays, yaw_matrix
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.images import decode_map

SCENE = ScenePoint(7, 0)
PLAIN = GeometricOptions(depth_model="none", inpaint_model="none")
SIDE = 64
K = intrinsics_from_fov(FOV_DEG, SIDE, SIDE)


def room_view(c2w: Floats) -> Photo:
    """What a camera sees that went `c2w` from the anchor in the room that all worlds are tried in, with its depth."""
    room = build_room(SCENE.seed)
    view = SceneRenderer(room).render(anchor_pose(room, SCENE.index) @ c2w, K, SIDE, SIDE)
    return Photo(view.rgb, K, np.where(np.isfinite(view.depth), view.depth, 0).astype(np.float32))


PHOTO = room_view(np.eye(4))
PAINTING = replace(PHOTO, depth=np.full((SIDE, SIDE), PLANE_UNITS, np.float32))
"""The same as the stand-ins of the remote worlds take it."""


@dataclass(frozen=True)
class Case:
    """A world under test.

    Attributes:
        make: makes it; weights may be written to the folder.
        anchor: one that it takes, of the room.
        other: one that it does not.
        is_random: its weights are random, so that its pictures show nothing.
        draws: what no camera saw is drawn at random, by the seed.
        snaps: at most so far, in metres and as a sine, a pose that it really uses is from the one asked for.
    """

    make: Callable[[Path], World]
    anchor: Photo | ScenePoint
    other: Photo | ScenePoint
    is_random: bool = False
    draws: bool = False
    snaps: float = 0.0

    @property
    def photo(self) -> Photo:
        """What its camera sees before it moves."""
        return self.anchor if isinstance(self.anchor, Photo) else PHOTO

    def spec(self, actions: str, **changes: object) -> ImagineSpec:
        path = from_actions(parse_actions(actions))
        return replace(ImagineSpec(self.anchor, path, size=(SIDE, SIDE)), **changes)


def make_renderer(_folder: Path) -> World:
    return RendererWorld(min_clearance_m=0, min_object_area=0)


def make_sana(folder: Path) -> World:
    return sana_wm.make(settings("sana_wm", tiny_sana(folder / "sana")))


def make_vace(folder: Path) -> World:
    return wan_vace_warp.make(settings("wan_vace_warp", tiny_wan(folder / "wan"), depth="none"))


def make_svc(folder: Path) -> World:
    return make_world(svc.NAME, options(svc.NAME, folder / "svc", side=SIDE))


def make_hy(folder: Path) -> World:
    return make_world(hy_worldplay.NAME, options(hy_worldplay.NAME, folder / "hy", width=SIDE, height=SIDE))


CASES = {
    "renderer": Case(make_renderer, SCENE, PHOTO),
    "geometric": Case(lambda _folder: GeometricWorld(), PHOTO, SCENE, draws=True),
    "geometric, not painted": Case(lambda _folder: GeometricWorld(options=PLAIN), PHOTO, SCENE),
    "sana_wm": Case(make_sana, PHOTO, SCENE, is_random=True, draws=True),
    "wan_vace_warp": Case(make_vace, PHOTO, SCENE, draws=True),
    "svc": Case(make_svc, PAINTING, SCENE, draws=True),
    # Half of its steps of 0.08 m and 3 degrees.
    "hy_worldplay": Case(make_hy, PAINTING, SCENE, draws=True, snaps=0.04),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def world(case: Case, weights: Path) -> Iterator[World]:
    with made(case, weights) as world:
        yield world


@contextmanager
def made(case: Case, weights: Path) -> Iterator[World]:
    """The world of a case; a process of its own ends with it."""
    world = case.make(weights)
    try:
        yield world
    finally:
        if isinstance(world, RemoteWorld):
            world.close()


@pytest.fixture
def seeing(case: Case) -> Case:
    """The case, where its pictures can be right."""
    if case.is_random:
        pytest.skip("its weights are random here: nothing that its pictures show can be right")
    return case


def frames_of(world: World, spec: ImagineSpec) -> list[Frame]:
    return list(world.imagine(spec))


def pixels(frame: Frame) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=np.float64)


def test_it_says_what_it_is(case: Case, world: World, weights: Path) -> None:
    info = world.info
    assert re.fullmatch(r"[0-9a-f]{64}", info.digest)
    assert info.digest == case.make(weights).info.digest
    assert info.name and info.description and info.licence
    assert info.takes_scenes is isinstance(case.anchor, ScenePoint)
    assert info.takes_photos is isinstance(case.anchor, Photo)
    assert info.terms or (info.outputs_may_train and info.outputs_may_be_sold and not info.excluded_regions)


def test_there_is_one_frame_for_every_waypoint(case: Case, world: World) -> None:
    actions = "move forward 0.3 meters; turn left 8 degrees"
    spec = case.spec(actions)
    frames = frames_of(world, spec)
    assert len(frames) == len(spec.path) == 5
    for frame, waypoint in zip(frames, spec.path, strict=True):
        assert np.allclose(frame.c2w, waypoint.c2w, rtol=0, atol=case.snaps)
        assert case.snaps or frame.actions_step == waypoint.actions_step
        assert frame.key_frame == waypoint.key_frame
        assert pixels(frame).shape == (frame.size[1], frame.size[0], 3)
        assert np.array_equal(frame.intrinsics, frames[0].intrinsics)
        assert all(np.isfinite(value) for value in frame.scores.values())
    assert case.snaps or np.array_equal(frames[-1].c2w, integrate(parse_actions(actions))[-1])


def test_actions_lead_from_each_frame_s_pose_to_the_next_one_s(case: Case, world: World) -> None:
    """Whatever was asked for: poses and actions are those that were really used."""
    frames = frames_of(world, case.spec("move forward 0.3 meters; turn left 8 degrees"))
    for before, after in pairwise(frames):
        assert after.actions_step
        assert np.allclose(integrate(after.actions_step, before.c2w)[-1], after.c2w, rtol=0, atol=1e-9)


def test_the_first_frame_is_the_anchor_s_own(case: Case, world: World) -> None:
    there = world.imagine(case.spec("turn left 5 degrees"))
    again = world.imagine(case.spec("move right 0.1 meters"))
    first = next(iter(there))
    assert np.array_equal(first.c2w, np.eye(4))
    assert first.png == next(iter(again)).png
    assert np.array_equal(pixels(first), PHOTO.pixels)
    assert np.allclose(first.intrinsics, K)


def test_a_camera_that_stays_sees_the_anchor(case: Case, world: World) -> None:
    spec = replace(case.spec("turn left 5 degrees"), path=from_poses([np.eye(4)] * 3))
    frames = list(world.imagine(spec))
    assert len(frames) == 4
    for imagined in frames:
        assert np.array_equal(pixels(imagined), PHOTO.pixels)
        assert not imagined.observed_png or decode_map(imagined.observed_png).all()


def test_intrinsics_are_those_of_the_frames_whatever_the_photo_s_shape(case: Case, world: World) -> None:
    """Sides and colours: each pixel of this photo names its own ray, so frames can be asked which rays they show."""
    if not isinstance(case.anchor, Photo):
        pytest.skip("a scene has no shape of its own")
    wide = np.array([[70.0, 0, 70.0], [0, 75.0, 40.0], [0, 0, 1]])
    rays = pixel_rays(wide, 120, 90)
    coloured = np.dstack([127 + 90 * rays[..., 0], 127 + 90 * rays[..., 1], np.full((90, 120), 80)])
    photo = Photo(np.clip(coloured, 0, 255).astype(np.uint8), wide, np.full((90, 120), 2, np.float32))
    frame = frames_of(world, case.spec("turn left 3 degrees", anchor=photo))[0]
    shown = pixel_rays(frame.intrinsics, *frame.size)[4:-4, 4:-4]
    assert np.abs(pixels(frame)[4:-4, 4:-4, :2] - (127 + 90 * shown[..., :2])).max() < 4


def test_the_same_request_gives_the_same_bytes(case: Case, world: World, weights: Path) -> None:
    spec = case.spec("move left 0.2 meters; turn right 5 degrees")
    with made(case, weights) as again:
        for one, other in zip(world.imagine(spec), again.imagine(spec), strict=True):
            assert (one.png, one.observed_png) == (other.png, other.observed_png)
            assert (one.objects, one.scores) == (other.objects, other.scores)


def test_the_seed_decides_what_is_drawn_and_nothing_else(case: Case, world: World) -> None:
    spec = case.spec("turn right 10 degrees")
    mine, other = list(world.imagine(spec)), list(world.imagine(replace(spec, seed=1)))
    assert mine[0].png == other[0].png
    assert (mine[-1].png != other[-1].png) == case.draws
    assert [each.observed_png for each in mine] == [each.observed_png for each in other]


def test_another_path_gives_another_picture(case: Case, world: World) -> None:
    left, right = (frames_of(world, case.spec(f"turn {side} 10 degrees"))[-1] for side in ("left", "right"))
    assert left.png != right.png


@pytest.mark.parametrize(("actions", "yaw"), [("turn left 30 degrees", -30), ("turn right 30 degrees", 30)])
def test_a_turn_is_the_one_commanded(seeing: Case, world: World, actions: str, yaw: float) -> None:
    """Of a turn alone the pictures follow from each other, without any depth: the homography K R K^-1."""
    frames = frames_of(world, seeing.spec(actions))
    errors = {turn: error_of_turn(frames[0], frames[-1], turn) for turn in (-37.5, -30, -22.5, 0, 22.5, 30, 37.5)}
    assert min(errors, key=lambda turn: errors[turn]) == yaw
    assert errors[yaw] < errors[-yaw] / 4
    keeper = Gatekeeper(seeing.photo)
    assert all(judged(keeper, frame, frame.c2w)["yaw"] for frame in frames[1:])
    assert not judged(Gatekeeper(seeing.photo), frames[-1], np.linalg.inv(frames[-1].c2w))["yaw"]


def judged(keeper: Gatekeeper, frame: Frame, c2w: Floats) -> dict[str, bool]:
    """Which gates let a frame pass as the view from a camera."""
    verdicts = keeper.judge(View(pixels(frame).astype(np.uint8), frame.intrinsics, c2w))
    return {verdict.gate: verdict.passed for verdict in verdicts}


def error_of_turn(before: Frame, after: Frame, yaw: float) -> float:
    """The mean square difference of a frame to what the one before shows of it, were the camera turned by `yaw`."""
    rays = pixel_rays(after.intrinsics, *after.size) @ yaw_matrix(yaw).T
    places = rays @ before.intrinsics.T
    columns, rows = (places[..., axis] / np.maximum(places[..., 2], 1e-3) - 0.5 for axis in (0, 1))
    width, height = before.size
    inside = (places[..., 2] > 0) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    assert inside.mean() > 0.2
    shown = [
        ndimage.map_coordinates(pixels(before)[..., c], [rows, columns], order=1, mode="nearest") for c in range(3)
    ]
    return float(np.square(np.stack(shown, axis=-1) - pixels(after))[inside].mean())


def test_a_step_forward_has_the_metres_commanded(seeing: Case, world: World) -> None:
    after = frames_of(world, seeing.spec("move forward 0.4 meters"))[-1]
    errors = {}
    for metres in (-0.4, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
        shown, seen = independent_view(seeing, metres)
        errors[metres] = float(np.square(pixels(after) - shown)[seen].mean())
    assert min(errors, key=lambda metres: errors[metres]) == 0.4
    assert errors[0.4] < errors[0.0] / 3
    assert judged(Gatekeeper(seeing.photo), after, after.c2w)["reprojection"]


def independent_view(case: Case, metres: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The view from so far ahead, and where it is known: from the room for its photo, and from a photo for others."""
    c2w = np.eye(4)
    c2w[2, 3] = metres
    if case.anchor is PHOTO:
        return room_view(c2w).pixels, np.ones((SIDE, SIDE), dtype=np.bool_)
    assert case.photo.depth is not None
    warped = Relief(case.photo.pixels, case.photo.depth, K).view(c2w)
    return warped.rgb, warped.seen


def test_poses_and_actions_are_the_same_path(case: Case, world: World) -> None:
    actions = parse_actions("move backward 0.1 meters; turn left 5 degrees")
    spec = case.spec("turn left 5 degrees")
    by_actions = frames_of(world, replace(spec, path=from_actions(actions)))
    by_poses = frames_of(world, replace(spec, path=from_poses(list(integrate(actions)[1:]))))
    assert [frame.png for frame in by_actions if frame.key_frame] == [frame.png for frame in by_poses]


def test_observed_maps_have_the_frame_s_size_and_two_values(case: Case, world: World) -> None:
    for imagined in world.imagine(case.spec("turn left 5 degrees")):
        if imagined.observed_png:
            observed = decode_map(imagined.observed_png)
            assert observed.shape == imagined.size[::-1]
            assert set(np.unique(observed)) <= {0, 255}
        else:
            assert not world.info.generative or np.array_equal(imagined.c2w, np.eye(4))


def test_cancelling_stops_the_work_within_one_step(case: Case, world: World) -> None:
    calls = []
    reader = threading.get_ident()

    def cancelled_at(call: int) -> Callable[[], bool]:
        def is_cancelled() -> bool:
            # A remote world also asks from threads of its own, as often as time allows.
            if threading.get_ident() == reader:
                calls.append(None)
            return len(calls) >= call

        return is_cancelled

    spec = case.spec("move forward 0.2 meters; turn left 20 degrees", seed=3)
    whole = len(list(world.imagine(replace(spec, is_cancelled=cancelled_at(1_000_000)))))
    assert whole == len(spec.path) == 6
    asked = len(calls)
    assert asked >= 3, "a world asks between its steps"
    for call in (1, 2, asked - 1):
        calls.clear()
        frames = list(world.imagine(replace(spec, is_cancelled=cancelled_at(call))))
        assert len(frames) < whole
        assert len(calls) <= call + 1


def test_not_asking_for_more_leaves_the_world_free_for_others(case: Case, world: World) -> None:
    spec = case.spec("turn left 10 degrees")
    left = world.imagine(spec)
    for _ in range(2):
        next(left)
    assert len(frames_of(world, spec)) == len(spec.path)


def test_a_path_of_ten_thousand_poses_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 512"):
        from_poses([np.eye(4)] * 10_000)


def test_the_other_kind_of_anchor_is_refused(case: Case, world: World) -> None:
    with pytest.raises(InvalidInputError, match="not"):
        frames_of(world, replace(case.spec("turn left 5 degrees"), anchor=case.other))


# What only one of the worlds does.


def test_the_renderer_names_what_it_shows() -> None:
    spec = replace(CASES["renderer"].spec("turn left 10 degrees"), with_instances=True, size=(96, 64))
    for frame in frames_of(make_renderer(Path()), spec):
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
        list(GeometricWorld(options=PLAIN).imagine(CASES["geometric"].spec("turn left 80 degrees")))
    assert caught.value.gate == "unobserved"
    assert caught.value.figure < 0.3


def test_a_photo_without_depth_can_turn_but_not_move() -> None:
    world, photo = GeometricWorld(options=PLAIN), replace(motorcycle(), depth=None)
    spec = ImagineSpec(photo, from_actions(parse_actions("turn left 10 degrees")))
    assert len(frames_of(world, spec)) == 3
    with pytest.raises(InvalidInputError, match="depth"):
        list(world.imagine(replace(spec, path=from_actions(parse_actions("move left 0.1 meters")))))


def test_depth_that_is_unknown_everywhere_or_too_large_a_photo_is_refused() -> None:
    world, photo = GeometricWorld(options=PLAIN), motorcycle()
    path = from_actions(parse_actions("turn left 5 degrees"))
    with pytest.raises(InvalidInputError, match="unknown"):
        list(world.imagine(ImagineSpec(replace(photo, depth=np.zeros((250, 370), np.float32)), path)))
    large = replace(photo, pixels=np.zeros((1025, 1024, 3), np.uint8), depth=None)
    with pytest.raises(InvalidInputError, match="scale it down"):
        list(world.imagine(ImagineSpec(large, path)))
