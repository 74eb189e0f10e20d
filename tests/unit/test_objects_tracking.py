"""Which object is which from frame to frame, on scenes of boards before a wall whose every corner is known."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from teacher_service.objects import Detection, ObjectFilters, ObjectTracker, WithObjects
from teacher_service.objects.surfaces import Surroundings, extent
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, Photo
from tests.detector_kit import GivenDetections
from trainer.labelling import label
from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Bundle, Frame, ObjectView
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.worlds import WorldInfo

SIZE = (200, 150)
K = intrinsics_from_fov(90, *SIZE)
WALL_M = 5.0
FILTERS = ObjectFilters()

# x1, y1, x2, y2 and z in metres, before the anchor's camera.
Board = tuple[float, float, float, float, float]
LEFT: Board = (-1.0, -0.4, -0.4, 0.4, 2.0)
RIGHT: Board = (0.4, -0.4, 1.0, 0.4, 2.0)


def see(board: Board, frame: Frame, name: str = "chair") -> Detection:
    """What a perfect detector says of a board: the box of its corners, cut off at the border."""
    x1, y1, x2, y2, z = board
    corners = np.array([(x, y, z) for x in (x1, x2) for y in (y1, y2)])
    camera = (corners - frame.c2w[:3, 3]) @ frame.c2w[:3, :3]
    assert camera[:, 2].min() > 0
    pixels = camera[:, :2] / camera[:, 2:] * K.diagonal()[:2] + K[:2, 2]
    (u1, v1), (u2, v2) = np.clip(pixels.min(axis=0), 0, SIZE), np.clip(pixels.max(axis=0), 0, SIZE)
    return Detection(name, 0.9, (float(u1), float(v1), float(u2), float(v2)))


def depth_of(*boards: Board) -> np.ndarray:
    frame, depth = path("turn left 10 degrees")[0], np.full(SIZE[::-1], WALL_M, np.float32)
    for board in boards:
        u1, v1, u2, v2 = map(round, see(board, frame).box)
        depth[v1:v2, u1:u2] = np.minimum(depth[v1:v2, u1:u2], board[4])
    return depth


def path(text: str) -> list[Frame]:
    waypoints = from_actions(parse_actions(text), key_frames_only=True)
    return [Frame(b"", each.c2w, K, SIZE, each.actions_step, path=f"{i}.png") for i, each in enumerate(waypoints)]


def follow(frames: Sequence[Frame], answers: Sequence[Sequence[Detection]], *boards: Board) -> tuple[Frame, ...]:
    tracker = ObjectTracker(depth_of(*boards), K, SIZE, GivenDetections(answers), FILTERS)
    return tuple(map(tracker.add, frames))


def track(
    frames: Sequence[Frame], answers: Sequence[Sequence[Detection]], *boards: Board
) -> list[dict[int, ObjectView]]:
    return [{view.instance_id: view for view in frame.objects} for frame in follow(frames, answers, *boards)]


def corners(detection: Detection) -> Box:
    x1, y1, x2, y2 = (round(edge / SIZE[i % 2] * 1000) for i, edge in enumerate(detection.box))
    return Box(x1, y1, x2, y2)


@pytest.mark.parametrize("text", ["move right 0.7 meters", "turn right 14 degrees", "move left 0.5 meters"])
def test_two_chairs_keep_their_ids_where_the_nearest_of_that_name_is_the_other(text: str) -> None:
    frames = path(text)
    seen = [[see(LEFT, frame), see(RIGHT, frame)] for frame in frames]
    # The detector's order says nothing.
    first, second = track(frames, [seen[0], seen[1][::-1]], LEFT, RIGHT)
    assert [view.box for view in first.values()] == [corners(each) for each in seen[0]]
    assert second[1].box == corners(seen[1][0])
    assert second[2].box == corners(seen[1][1])
    assert {view.category for view in second.values()} == {"chair"}
    assert second[1].area == pytest.approx(second[1].box.area / 1e6, rel=0.05)


def test_one_chair_of_two_is_the_one_that_stands_there() -> None:
    frames = path("move right 1.7 meters")
    # After the move the right chair is where the left one was before.
    only = see(RIGHT, frames[1])
    assert abs(only.box[0] - see(LEFT, frames[0]).box[0]) < 25
    _, second = track(frames, [[see(LEFT, frames[0]), see(RIGHT, frames[0])], [only]], LEFT, RIGHT)
    assert set(second) == {2}
    assert second[2].box == corners(only) and second[2].area > 0


def test_what_was_missed_is_still_in_view_but_not_asked_about() -> None:
    frames = path("move right 0.3 meters")
    _, second = track(frames, [[see(LEFT, frames[0]), see(RIGHT, frames[0])], [see(LEFT, frames[1])]], LEFT, RIGHT)
    assert second[1].area > 0
    assert second[2].area == 0
    expected = see(RIGHT, frames[1]).box
    assert np.allclose(second[2].box.corners, np.array(expected) / (SIZE * 2) * 1000, atol=25)


def test_what_leaves_the_view_is_gone() -> None:
    frames = path("turn right 60 degrees; turn left 60 degrees")
    both = [see(LEFT, frames[0]), see(RIGHT, frames[0])]
    _, away, back = track(frames, [both, [], both], LEFT, RIGHT)
    assert set(away) == {2}
    assert {number: view.box for number, view in back.items()} == {1: corners(both[0]), 2: corners(both[1])}
    assert all(view.area > 0 for view in back.values())


def test_what_something_nearer_hides_is_gone() -> None:
    near: Board = (0.1, -0.6, 0.45, 0.6, 1.0)
    behind: Board = (-0.2, -0.2, 0.15, 0.2, 3.0)
    frames = path("move left 0.35 meters")
    seen = [see(near, frames[0], "shelf"), see(behind, frames[0])]
    _, second = track(frames, [seen, [see(near, frames[1], "shelf")]], near, behind)
    assert set(second) == {1, 2}
    frames = path("move right 0.5 meters")
    _, gone = track(frames, [seen, [see(near, frames[1], "shelf")]], near, behind)
    assert set(gone) == {1}


def test_what_is_called_something_else_keeps_its_id_and_is_not_asked_about() -> None:
    frames = path("move right 0.3 meters")
    _, second = track(frames, [[see(LEFT, frames[0])], [see(LEFT, frames[1], "sofa")]], LEFT)
    (view,) = second.values()
    assert (view.instance_id, view.category, view.area) == (1, "chair", 0)


def test_what_comes_into_view_is_new() -> None:
    beyond: Board = (3.0, -0.6, 4.0, 0.6, 2.5)
    frames = path("turn right 30 degrees")
    first, second = track(frames, [[see(RIGHT, frames[0])], [see(RIGHT, frames[1]), see(beyond, frames[1])]], RIGHT)
    assert set(first) == {1}
    assert set(second) == {1, 2}
    assert second[2].area > 0


def test_what_an_earlier_view_must_have_shown_is_not_asked_about() -> None:
    frames = path("move right 0.3 meters; move right 0.2 meters")
    answers = [[see(LEFT, frames[0])], *([see(LEFT, frame), see(RIGHT, frame)] for frame in frames[1:])]
    _, second, third = track(frames, answers, LEFT, RIGHT)
    assert second[2].area == third[2].area == 0
    assert third[1].area > 0


@pytest.mark.parametrize(
    ("box", "askable"),
    [
        ((50.0, 50.0, 90.0, 90.0), True),
        ((1.0, 50.0, 90.0, 90.0), False),
        ((50.0, 50.0, 90.0, 149.5), False),
        ((50.0, 50.0, 65.0, 65.0), False),
        ((5.0, 5.0, 195.0, 145.0), False),
    ],
)
def test_small_large_and_cut_off_boxes_are_tracked_but_not_asked_about(
    box: tuple[float, float, float, float], askable: bool
) -> None:
    tracker = ObjectTracker(None, K, SIZE, GivenDetections([[Detection("lamp", 0.9, box)]]), FILTERS)
    (view,) = tracker.add(path("turn left 5 degrees")[0]).objects
    assert (view.area > 0) is askable


def test_uncertain_and_repeated_detections_are_left_out() -> None:
    one, again = Detection("lamp", 0.8, (50, 50, 90, 90)), Detection("vase", 0.5, (51, 50, 91, 90))
    weak, other = Detection("lamp", 0.2, (100, 50, 140, 90)), Detection("lamp", 0.4, (70, 50, 110, 90))
    assert FILTERS.select([weak, other, again, one]) == [one, other]


def test_a_mask_says_what_belongs_to_the_object() -> None:
    mask = np.zeros(SIZE[::-1], bool)
    mask[50:60, 50:90] = True
    answers = [[replace(Detection("lamp", 0.9, (50, 50, 90, 90)), mask=mask)]]
    (view,) = ObjectTracker(None, K, SIZE, GivenDetections(answers), FILTERS).add(path("FWD_1")[0]).objects
    assert view.area == pytest.approx(400 / 30000)


def test_without_depth_objects_are_followed_through_turns_alone() -> None:
    frames = path("turn right 15 degrees; move forward 1 meters")
    answers = [[see(LEFT, frame), see(RIGHT, frame)] for frame in frames[:2]]
    tracker = ObjectTracker(None, K, SIZE, GivenDetections(answers), FILTERS)
    tracker.add(frames[0])
    second = tracker.add(frames[1]).objects
    assert [view.box for view in second] == [corners(each) for each in answers[1]]
    with pytest.raises(InvalidInputError, match="only be followed through a move where the photo's depth is known"):
        tracker.add(frames[2])


def test_depth_that_is_unknown_everywhere_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="unknown at every pixel"):
        Surroundings(np.zeros(SIZE[::-1], np.float32), K, SIZE)


def test_the_surface_is_the_layer_that_the_box_is_about() -> None:
    frame = path("FWD_1")[0]
    viewpoint = Surroundings(depth_of(LEFT), K, SIZE).view(frame)
    x1, y1, x2, y2 = see(LEFT, frame).box
    loose = Detection("chair", 0.9, (x1 - 6, y1 - 6, x2 + 6, y2 + 6))
    points = viewpoint.surface(loose)
    assert np.allclose(points[:, 2], 2.0, atol=0.05)
    assert np.allclose(extent(viewpoint.visible(points)), (x1, y1, x2, y2), atol=3)


def test_frames_come_one_by_one() -> None:
    class Watched:
        info = WorldInfo("watched", "", True, False, False, True, "CC0-1.0", True, "")

        def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
            yield path("FWD_1")[0]
            raise AssertionError("the second frame was asked for before the first was given")

    photo = Photo(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), K)
    spec = ImagineSpec(photo, from_actions(parse_actions("turn left 5 degrees")))
    assert next(WithObjects(Watched(), GivenDetections([[]]), FILTERS).imagine(spec)).objects == ()


def test_questions_about_tracked_photos_are_only_those_with_a_certain_answer() -> None:
    frames = path("move right 0.7 meters; turn right 60 degrees")
    missed = [see(LEFT, frames[0]), see(RIGHT, frames[0])], [see(RIGHT, frames[1])], []
    records = label(Bundle("photo", "1", follow(frames, missed, LEFT, RIGHT), {}), seed=0)
    asked = {
        task: [(each.meta["frames"], each.meta["instance"]) for each in records if each.task_type == task]
        for task in ("D1", "D2", "D3", "D4")
    }
    # The left chair was missed in the second frame, and can't be seen from the third.
    assert ([0, 1], 2) in asked["D1"] and ([0, 1], 1) not in asked["D1"]
    assert ([0, 1], 1) not in asked["D2"]
    texts = [record.user for record in records]
    assert any("the chair is at bbox [" in text for text in texts)
    assert not any("  " in text or "the  chair" in text or " ," in text for text in texts)
