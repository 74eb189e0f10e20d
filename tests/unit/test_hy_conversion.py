"""HY-WorldPlay's unit moves, labels and matrices, against formulas of their own."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from teacher_service.paths import from_actions
from teacher_service.workers.hy_worldplay.conversion import Plan, Steps, plan_path
from world2vlm.actions import parse_actions
from world2vlm.cameras import Floats, integrate
from world2vlm.errors import InvalidInputError


def plan(actions: str, units_per_metre: float = 1.0) -> tuple[Plan, Floats]:
    """A path as the teacher sends it, in small steps."""
    poses = np.stack([waypoint.c2w for waypoint in from_actions(parse_actions(actions))])
    return plan_path(poses, units_per_metre), poses


def label_of(relative: Floats) -> int:
    """A step's class from its matrix alone, with the thresholds of `hyvideo.generate.pose_to_input`."""
    x, _, z = relative[:3, 3] / max(np.linalg.norm(relative[:3, 3]), 1e-12)
    names = ("w" if z > 0.5 else "s" if z < -0.5 else "") + ("d" if x > 0.5 else "a" if x < -0.5 else "")
    tilt, turn, _ = Rotation.from_matrix(relative[:3, :3]).as_euler("xyz", degrees=True)
    turns = ("r" if turn > 0.05 else "l" if turn < -0.05 else "") + (
        "u" if tilt > 0.05 else "d" if tilt < -0.05 else ""
    )
    translation = ("", "w", "s", "d", "a", "wd", "wa", "sd", "sa").index(names)
    return 9 * translation + ("", "r", "l", "u", "d", "ru", "rd", "lu", "ld").index(turns)


def test_the_81_labels_are_those_of_the_steps_own_matrices() -> None:
    labels = set()
    for forward, right, yaw, pitch in itertools.product((-1, 0, 1), repeat=4):
        steps = Steps(forward, right, yaw, pitch)
        move = np.eye(4)
        move[:3, :3] = Rotation.from_euler("YX", [3 * yaw, 3 * pitch], degrees=True).as_matrix()
        # Where the camera looks after its turn decides where it goes, but its label says which way it was told to go.
        told = move.copy()
        told[:3, 3] = (0.08 * right, 0, 0.08 * forward)
        move[:3, 3] = move[:3, :3] @ told[:3, 3]
        assert np.allclose(steps.pose(0.08), move)
        assert steps.label == label_of(told)
        labels.add(steps.label)
    assert labels == set(range(81))


def test_turning_left_is_negative_yaw_and_class_2() -> None:
    left, _ = plan("turn left 30 degrees")
    assert left.labels[:12].tolist() == [0] + [2] * 10 + [0]
    forward = left.c2w[10, :3, 2]
    assert np.allclose(forward, (-0.5, 0, np.sqrt(3) / 2))
    right, _ = plan("turn right 30 degrees")
    assert right.labels[:12].tolist() == [0] + [1] * 10 + [0]
    # In world-to-camera matrices the sign is the other one: what was ahead is to the right after a turn to the left.
    assert (left.viewmats(1.0)[10] @ (0, 0, 1, 1))[0] == pytest.approx(0.5)


def test_latents_come_in_fours_and_frames_follow_from_them() -> None:
    for degrees in range(3, 60, 3):
        found, _ = plan(f"turn left {degrees} degrees")
        assert len(found.c2w) % 4 == 0
        assert len(found.c2w) - 4 < 1 + degrees // 3 <= len(found.c2w)
        assert found.frames == 4 * len(found.c2w) - 3
        assert found.frame_of(len(found.latent_of) - 1) == 4 * (degrees // 3) < found.frames
    # The latents that fill the last chunk stand still.
    assert np.allclose(found.c2w[-1], found.c2w[found.latent_of[-1]])


def test_whole_steps_are_kept_exactly_and_others_are_snapped() -> None:
    found, poses = plan("turn left 30 degrees; move forward 0.8 meters; turn right 60 degrees; move left 0.4 meters")
    key = [6, 10, 22, 24]  # the ends of the actions
    assert np.allclose(found.c2w[[found.latent_of[index] for index in key]], poses[key])
    found, poses = plan("turn left 10 degrees")
    snapped = found.c2w[list(found.latent_of)]
    assert np.allclose(-np.degrees(np.arctan2(snapped[:, 0, 2], snapped[:, 2, 2])), [0, 6, 9])


def test_what_rounding_leaves_is_owed_so_that_headings_do_not_drift() -> None:
    found, _ = plan("; ".join(["turn left 10 degrees"] * 9))
    last = found.c2w[found.latent_of[-1]]
    assert np.allclose(last[:3, 2], (-1, 0, 0), atol=1e-9)
    steps = np.diff(found.latent_of)
    assert set(steps) == {1, 2}


def test_units_scale_moves_and_not_turns() -> None:
    found, _ = plan("move forward 0.8 meters", units_per_metre=2.0)
    assert found.latent_of[-1] == 20  # 1.6 units
    assert found.c2w[20, 2, 3] == pytest.approx(0.8)
    assert found.viewmats(2.0)[20, 2, 3] == pytest.approx(-1.6)
    assert plan("turn left 30 degrees", units_per_metre=2.0)[0].latent_of[-1] == 10


def pose(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, pitch: float = 0, roll: float = 0) -> Floats:
    found = np.eye(4)
    found[:3, :3] = Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).as_matrix()
    found[:3, 3] = x, y, z
    return found


def test_a_diagonal_move_uses_the_mixed_classes_and_ends_with_a_straight_one() -> None:
    found = plan_path(np.stack([np.eye(4), pose(x=-0.16, z=0.4)]), 1.0)
    assert found.labels.tolist() == [0] + [9 * 6] * 2 + [9 * 1] * 3 + [0, 0]
    assert np.allclose(found.c2w[found.latent_of[1]], pose(x=-0.16, z=0.4))


def test_a_step_that_turns_and_moves_is_split_and_ends_where_it_should() -> None:
    target = pose(x=0.4 * np.sin(np.radians(30)), z=0.4 * np.cos(np.radians(30)), yaw=30, pitch=-9)
    target[1, 3] = 0.0
    level = plan_path(np.stack([np.eye(4), pose(yaw=30, x=target[0, 3], z=target[2, 3])]), 1.0)
    assert level.labels.tolist() == [0] + [1] * 10 + [9] * 5
    assert np.allclose(level.c2w[15], pose(yaw=30, x=target[0, 3], z=target[2, 3]))
    tilted = plan_path(np.stack([np.eye(4), pose(yaw=30, pitch=-9)]), 1.0)
    assert tilted.labels.tolist() == [0] + [1] * 10 + [4] * 3 + [0, 0]
    assert np.allclose(tilted.c2w[13], pose(yaw=30, pitch=-9))


@pytest.mark.parametrize("target", [pose(y=0.3), pose(roll=10), pose(y=-0.2, z=0.4)])
def test_rolling_rising_and_sinking_are_refused(target: Floats) -> None:
    with pytest.raises(InvalidInputError, match="rolls, rises or sinks"):
        plan_path(np.stack([np.eye(4), target]), 1.0)


@pytest.mark.parametrize("action", ["turn left 1 degrees", "move forward 0.03 meters"])
def test_steps_that_round_to_nothing_are_refused(action: str) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.08 m.*3 degrees"):
        plan_path(integrate(parse_actions(action)), 1.0)


def test_a_path_that_stays_is_one_chunk_that_stands_still() -> None:
    found = plan_path(np.stack([np.eye(4)] * 3), 1.0)
    assert found.latent_of == (0, 0, 0)
    assert found.labels.tolist() == [0] * 4
