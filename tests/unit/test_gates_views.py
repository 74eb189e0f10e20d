"""The gates on crops of real photographs and on rendered rooms: right views pass, wrong ones fail with the figure."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.teach.panoramas import FOLDER, load_panorama
from benchmarks.teach.sabotage import RIGHT, WRONG, Place, RoomPlace, Side, Turntable
from teacher_service.gates.keeper import Gatekeeper, with_verdicts
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict
from teacher_service.gates.views import View
from teacher_service.paths import from_actions
from teacher_service.worlds.base import Photo
from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import Floats, integrate, yaw_matrix

POSES = ("opposite way", "no motion", "0.75 of the way", "another place")


def views(place: Place, text: str, side: Side) -> list[View]:
    """A path in steps, as a world makes it."""
    rng = np.random.default_rng(0)
    made = [View(place.shoot(np.eye(4)), place.intrinsics, np.eye(4))]
    for waypoint in from_actions(parse_actions(text))[1:]:
        pixels = side.picture(place.shoot(side.pose(waypoint.c2w)), rng)
        made.append(View(pixels, place.intrinsics, waypoint.c2w))
    return made


def photo(place: Place, with_depth: bool = False) -> Photo:
    depth = place.depth() if with_depth and isinstance(place, RoomPlace) else None
    return Photo(place.shoot(np.eye(4)), place.intrinsics, depth)


def ask(
    place: Place, pose: Floats, side: Side, depth: bool = False, settings: GateSettings | None = None
) -> Sequence[Verdict]:
    pixels = side.picture(place.shoot(side.pose(pose)), np.random.default_rng(0))
    return Gatekeeper(photo(place, depth), settings).judge(View(pixels, place.intrinsics, pose))


def judge(anchor: Photo, path: Sequence[View], settings: GateSettings | None = None) -> list[Sequence[Verdict]]:
    keeper = Gatekeeper(anchor, settings)
    return [keeper.judge(view) for view in path]


def failed(verdicts: Sequence[Verdict]) -> set[str]:
    return {verdict.gate for verdict in verdicts if not verdict.passed}


@pytest.fixture(scope="module")
def interior() -> Turntable:
    return Turntable(load_panorama(FOLDER / "interior.jpg", yaw_deg=100))


@pytest.fixture(scope="module")
def room() -> RoomPlace:
    return RoomPlace(903)


@pytest.mark.parametrize("yaw", [-60, -35, -10, 20, 50])
def test_the_turn_of_a_real_camera_is_found_to_half_a_degree(interior: Turntable, yaw: float) -> None:
    pose = np.eye(4)
    pose[:3, :3] = yaw_matrix(yaw)
    for side in RIGHT.values():
        verdict, *others = ask(interior, pose, side)
        assert (verdict.gate, verdict.passed) == ("yaw", True)
        assert verdict.figure < 0.5
        assert verdict.scores["gate_yaw_error_deg"] == verdict.figure
        assert not failed(others)


@pytest.mark.parametrize("yaw", [-40, 10, 30])
@pytest.mark.parametrize("name", [*POSES, "5 degrees more", "blurred"])
def test_a_wrong_turn_is_caught(interior: Turntable, yaw: float, name: str) -> None:
    pose = np.eye(4)
    pose[:3, :3] = yaw_matrix(yaw)
    assert ("sharpness" if name == "blurred" else "yaw") in failed(ask(interior, pose, WRONG[name]))


def test_the_sentence_names_both_turns(interior: Turntable) -> None:
    pose = integrate(parse_actions("turn left 30 degrees"))[1]
    verdict = ask(interior, pose, WRONG["opposite way"])[0]
    assert "turned by -30.0 degrees and turned by +30." in verdict.sentence
    assert verdict.record().reason == verdict.sentence
    assert ask(interior, pose, RIGHT["right"])[0].record().reason == ""


def test_a_turn_farther_than_the_anchor_shows_needs_the_steps_between(interior: Turntable) -> None:
    path = views(interior, "turn right 120 degrees", RIGHT["right"])
    assert not any(map(failed, judge(photo(interior), path)))
    assert failed(judge(photo(interior), [path[0], path[-1]])[1]) == {"proof"}
    assert not failed(judge(photo(interior), [path[0], path[-1]], GateSettings(need_proof=False))[1])


def test_who_sends_key_frames_alone_is_told_that_steps_can_be_proven(interior: Turntable) -> None:
    path = views(interior, "turn right 120 degrees", RIGHT["right"])
    (proof,) = (each for each in judge(photo(interior), [path[-1]])[0] if each.gate == "proof")
    assert "no proven view shows enough of this one" in proof.sentence
    assert "go in smaller steps, and ask for the frames between key frames" in proof.sentence


def test_a_turn_too_far_to_be_told_after_a_move_is_unproven_and_has_no_direction(room: RoomPlace) -> None:
    path = views(room, "move forward 0.2 meters; turn left 10 degrees", RIGHT["right"])
    verdicts = judge(photo(room), [path[0], path[1], path[-1]], GateSettings(covisible_share=0.9))
    assert not failed(verdicts[1])
    assert failed(verdicts[2]) == {"proof"}


def test_what_is_kept_of_a_view_has_no_more_pixels_than_the_gates_look_at(interior: Turntable) -> None:
    first = views(interior, "turn left 5 degrees", RIGHT["right"])[0]
    pixels = np.asarray(cv2.resize(first.pixels, (384, 384), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    large = View(pixels, np.diag([3.0, 3.0, 1.0]) @ first.intrinsics, first.c2w)
    kept = large.reduced()
    assert kept.pixels.shape == (128, 128, 3)
    assert np.allclose(kept.intrinsics, first.intrinsics)
    assert np.abs(kept.picture.grey - large.picture.grey).max() <= 1


def test_errors_below_a_step_s_limit_add_up(interior: Turntable) -> None:
    slow = Side(False, lambda pose: integrate(parse_actions(f"turn right {0.8 * angle(pose):g} degrees"))[-1])
    verdicts = judge(photo(interior), views(interior, "turn right 60 degrees", slow))
    assert not failed(verdicts[1])
    assert "yaw" in failed(verdicts[-1])


def angle(pose: Floats) -> float:
    return float(np.degrees(np.arctan2(pose[0, 2], pose[2, 2])))


@pytest.mark.parametrize("text", ["move forward 0.6 meters", "move right 0.4 meters", "move backward 0.4 meters"])
def test_a_move_is_measured_where_depth_is_known(room: RoomPlace, text: str) -> None:
    pose = integrate(parse_actions(text))[-1]
    verdict = ask(room, pose, RIGHT["right"], depth=True)[0]
    assert (verdict.gate, verdict.passed) == ("reprojection", True)
    assert verdict.figure < 0.05
    assert verdict.scores["gate_reprojection_error_deg"] < 2
    for name in POSES:
        assert "reprojection" in failed(ask(room, pose, WRONG[name], depth=True)), name


def test_the_direction_of_a_move_is_told_without_depth(room: RoomPlace) -> None:
    pose = integrate(parse_actions("move right 0.2 meters"))[-1]
    verdict = ask(room, pose, RIGHT["right"])[0]
    assert (verdict.gate, verdict.passed) == ("direction", True)
    assert verdict.figure < 5
    for name in ("opposite way", "no motion"):
        assert "direction" in failed(ask(room, pose, WRONG[name])), name
    ahead = Side(False, lambda pose: integrate(parse_actions("move forward 0.2 meters"))[-1])
    found = ask(room, pose, ahead)[0]
    assert found.figure == pytest.approx(90, abs=10)


def test_each_step_of_a_mixed_path_gets_the_gates_that_apply(room: RoomPlace) -> None:
    path = views(room, "turn left 10 degrees; move forward 0.2 meters; turn right 10 degrees", RIGHT["right"])
    for depth, gate in ((True, "reprojection"), (False, "direction")):
        verdicts = judge(photo(room, depth), path)
        assert [each[0].gate for each in verdicts] == ["cycle", "yaw", "yaw", gate, "yaw", "yaw"]
        assert not any(map(failed, verdicts))


def test_coming_back_must_show_the_same(room: RoomPlace) -> None:
    path = views(room, "turn left 10 degrees; turn right 10 degrees", RIGHT["right"])
    assert judge(photo(room), path)[-1][0].gate == "cycle"
    changed = path[-1].pixels.copy()
    changed[30:90, 30:90] = (200, 30, 30)
    path[-1] = replace(path[-1], pixels=changed)
    assert "cycle" in failed(judge(photo(room), path)[-1])


def test_flicker_between_neighbours_is_caught_and_a_lasting_change_of_exposure_is_not(room: RoomPlace) -> None:
    path = views(room, "move forward 0.4 meters", RIGHT["other exposure"])
    assert not any(map(failed, judge(photo(room, True), path)))
    path[1] = replace(path[1], pixels=np.asarray(path[1].pixels // 2, dtype=np.uint8))
    assert failed(judge(photo(room, True), path)[1]) == {"smoothness"}


def test_objects_that_jump_grow_or_change_their_name_are_caught(interior: Turntable) -> None:
    chair = ObjectView(1, "chair", "", Box(400, 500, 500, 700), 0.02)
    path = views(interior, "turn right 5 degrees", RIGHT["right"])
    # 5 degrees to the right move things by about 44 thousandths to the left.
    for box, category, fine in (
        (Box(360, 500, 460, 700), "chair", True),
        (Box(700, 500, 800, 700), "chair", False),
        (Box(300, 300, 620, 900), "chair", False),
        (Box(360, 500, 460, 700), "table", False),
    ):
        moved = replace(chair, box=box, category=category)
        pair = [replace(path[0], objects=[chair]), replace(path[1], objects=[moved])]
        verdicts = judge(photo(interior), pair)[1]
        assert [each.passed for each in verdicts if each.gate == "tracks"] == [fine]
        assert failed(verdicts) <= {"tracks"}


def test_a_wrong_view_proves_no_other(interior: Turntable) -> None:
    path = views(interior, "turn right 120 degrees", RIGHT["right"])
    broken = [path[0], *(replace(each, pixels=path[0].pixels) for each in path[1:17]), *path[17:]]
    verdicts = judge(photo(interior), broken)
    assert all(failed(each) for each in verdicts[1:])
    assert "proof" in failed(verdicts[-1])


def test_another_size_or_lens_of_the_same_view_is_the_same_view(interior: Turntable) -> None:
    anchor = photo(interior)
    large = np.asarray(cv2.resize(anchor.pixels, (192, 192), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    assert not failed(Gatekeeper(anchor).judge(View(large, np.diag([1.5, 1.5, 1]) @ anchor.intrinsics, np.eye(4))))
    cut, lens = anchor.pixels[16:112, 16:112], anchor.intrinsics.copy()
    lens[:2, 2] -= 16
    found = Gatekeeper(anchor).judge(View(cut, lens, np.eye(4)))
    assert (found[0].gate, failed(found)) == ("yaw", set())


def test_zero_turns_every_gate_off(interior: Turntable) -> None:
    off = GateSettings(
        turn_error_deg=0,
        move_error_m=0,
        direction_deg=0,
        cycle_psnr_db=0,
        least_sharpness=0,
        most_sharpness=0,
        jump=0,
        track_shift=0,
        need_proof=False,
    )
    path = views(interior, "turn right 10 degrees", WRONG["another place"])
    assert judge(photo(interior), path, off) == [(), (), ()]


def test_a_frame_keeps_its_verdicts_and_their_figures(interior: Turntable) -> None:
    verdicts = ask(interior, integrate(parse_actions("turn left 20 degrees"))[-1], WRONG["no motion"])
    frame = Frame(b"", np.eye(4), interior.intrinsics, (128, 128), scores={"observed_share": 0.5})
    made = with_verdicts(frame, verdicts)
    assert made.scores["observed_share"] == 0.5
    assert made.scores["gate_yaw_error_deg"] == pytest.approx(20, abs=0.5)
    assert [(each.name, each.passed) for each in made.gates] == [("yaw", False), ("sharpness", True)]
