import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.actions import Action, Primitive, invert, parse_actions
from world2vlm.cameras import (
    Floats,
    check_intrinsics,
    check_pose,
    integrate,
    intrinsics_from_fov,
    pixel_rays,
    relative_pose,
    subdivide,
    yaw_matrix,
)
from world2vlm.errors import InvalidInputError

actions = st.lists(st.builds(Action, st.sampled_from(Primitive), st.floats(1e-3, 100)), max_size=8)


def test_turning_left_faces_left() -> None:
    final = integrate(parse_actions("turn left 30 degrees"))[-1]
    assert final[:3, 2] == pytest.approx((-0.5, 0.0, math.sqrt(3) / 2))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("move forward 2 meters", (0, 0, 2)),
        ("move backward 2 meters", (0, 0, -2)),
        ("move left 2 meters", (-2, 0, 0)),
        ("move right 2 meters", (2, 0, 0)),
        ("turn left 90 degrees; move forward 2 meters", (-2, 0, 0)),
        ("turn right 90 degrees; move forward 2 meters", (2, 0, 0)),
        ("move forward 1 meters; turn right 90 degrees; move left 1 meters", (0, 0, 2)),
    ],
)
def test_each_action_acts_in_the_cameras_own_frame(text: str, position: tuple[float, ...]) -> None:
    poses = integrate(parse_actions(text))
    assert poses.shape == (text.count(";") + 2, 4, 4)
    assert poses.dtype == np.float64
    assert np.array_equal(poses[0], np.eye(4))
    assert poses[-1][:3, 3] == pytest.approx(position, abs=1e-12)


@given(actions)
def test_the_inverse_leads_back_to_the_start(trajectory: list[Action]) -> None:
    there_and_back = integrate([*trajectory, *invert(trajectory)])
    assert there_and_back[-1] == pytest.approx(np.eye(4), abs=1e-9)


@given(actions)
def test_every_pose_is_rigid_and_level(trajectory: list[Action]) -> None:
    for pose in integrate(trajectory):
        check_pose(pose)
        assert pose[1, 3] == 0
        assert pose[:3, 1] == pytest.approx((0, 1, 0))


@given(actions, actions)
def test_integration_goes_on_from_any_pose(first: list[Action], second: list[Action]) -> None:
    middle = integrate(first)[-1]
    assert integrate(second, start=middle)[-1] == pytest.approx(integrate([*first, *second])[-1])


@given(st.builds(Action, st.sampled_from(Primitive), st.floats(1e-3, 100)))
def test_subdivision_makes_small_equal_steps_to_the_same_pose(action: Action) -> None:
    steps = subdivide(action)
    limit = 5.0 if action.primitive.is_turn else 0.2
    assert len(set(steps)) == 1
    assert steps[0].magnitude <= limit + 1e-6
    assert len(steps) == 1 or steps[0].magnitude > limit / 2
    assert integrate(steps)[-1] == pytest.approx(relative_pose(action), abs=1e-9)


def _with(row: int, column: int, value: float) -> Floats:
    pose = np.eye(4)
    pose[row, column] = value
    return pose


@pytest.mark.parametrize(
    "pose",
    [np.eye(3), np.zeros((4, 4)), _with(0, 3, math.nan), _with(1, 1, math.inf), _with(0, 0, -1), _with(3, 0, 1)],
    ids=["3x3", "zero", "nan", "inf", "mirrored", "last row"],
)
def test_what_is_no_pose_is_refused(pose: Floats) -> None:
    with pytest.raises(InvalidInputError):
        check_pose(pose)
    with pytest.raises(InvalidInputError):
        integrate([], start=pose)


def test_yaw_to_the_right_is_positive() -> None:
    assert yaw_matrix(90) @ (0, 0, 1) == pytest.approx((1, 0, 0))


def test_intrinsics_from_a_field_of_view() -> None:
    expected = np.array([[64, 0, 64], [0, 64, 48], [0, 0, 1]])
    assert intrinsics_from_fov(90, 128, 96) == pytest.approx(expected)


@pytest.mark.parametrize("fov", [0, 180, -10, math.nan, math.inf])
def test_an_impossible_field_of_view_is_refused(fov: float) -> None:
    with pytest.raises(InvalidInputError):
        intrinsics_from_fov(fov, 128, 128)


@pytest.mark.parametrize(
    "matrix", [np.eye(4), np.diag([0.0, 1, 1]), np.diag([1.0, -1, 1]), np.diag([1.0, math.nan, 1])]
)
def test_what_are_no_intrinsics_is_refused(matrix: Floats) -> None:
    with pytest.raises(InvalidInputError):
        check_intrinsics(matrix)


def test_rays_go_through_pixel_centres() -> None:
    rays = pixel_rays(intrinsics_from_fov(90, 4, 2), 4, 2)
    assert rays.shape == (2, 4, 3)
    assert rays.dtype == np.float32
    assert rays[0, 0] == pytest.approx((-0.75, -0.25, 1))
    assert rays[1, 3] == pytest.approx((0.75, 0.25, 1))
