import numpy as np
import pytest

from teacher_service.paths import from_actions, from_poses, positions_along
from world2vlm.actions import parse_actions
from world2vlm.cameras import integrate
from world2vlm.errors import InvalidInputError

ACTIONS = parse_actions("move forward 0.5 meters; turn left 12 degrees")


def test_steps_lie_between_the_ends_of_the_actions() -> None:
    path = from_actions(ACTIONS)
    assert [waypoint.key_frame for waypoint in path] == [True, False, False, True, False, False, True]
    assert [str(waypoint.actions_step[0]) for waypoint in path[1:]] == ["move forward 0.167 meters"] * 3 + [
        "turn left 4 degrees"
    ] * 3
    keys = [waypoint.c2w for waypoint in path if waypoint.key_frame]
    assert np.array_equal(keys, integrate(ACTIONS))
    assert path[2].c2w[2, 3] == pytest.approx(1 / 3)


def test_key_frames_only_are_the_same_key_frames() -> None:
    keys = [waypoint for waypoint in from_actions(ACTIONS) if waypoint.key_frame]
    only = from_actions(ACTIONS, key_frames_only=True)
    assert np.array_equal([w.c2w for w in keys], [w.c2w for w in only])
    assert [w.actions_step for w in only] == [(), (ACTIONS[0],), (ACTIONS[1],)]


def test_poses_are_key_frames_after_the_anchor() -> None:
    poses = integrate(ACTIONS)[1:]
    path = from_poses(poses)
    assert np.array_equal(path[0].c2w, np.eye(4))
    assert np.array_equal([waypoint.c2w for waypoint in path[1:]], poses)
    assert all(waypoint.key_frame and not waypoint.actions_step for waypoint in path)


def test_points_along_a_path_leave_no_gap() -> None:
    path = from_actions(ACTIONS, key_frames_only=True)
    points = list(positions_along(path, 0.05))
    assert all(np.allclose(on_way[-1], each.c2w[:3, 3]) for on_way, each in zip(points, path, strict=True))
    way = np.concatenate(points)
    assert np.linalg.norm(np.diff(way, axis=0), axis=1).max() <= 0.05 + 1e-9
    assert np.allclose(way[-1], (0, 0, 0.5))


def test_empty_and_endless_paths_are_refused_at_once() -> None:
    with pytest.raises(InvalidInputError, match="at least one"):
        from_actions([])
    with pytest.raises(InvalidInputError, match="at least one"):
        from_poses([])
    for text in ("turn left 1e12 degrees", "move left 1e300 meters"):
        with pytest.raises(InvalidInputError, match="unknown action"):
            parse_actions(text)
    for text in ("turn left 1000000000000 degrees", "move left 1000000000000 meters"):
        with pytest.raises(InvalidInputError, match="at most 512"):
            from_actions(parse_actions(text))
    for text in ("move left 1000000000000 meters", "move left 101 meters"):
        with pytest.raises(InvalidInputError, match="at most 100 m"):
            from_actions(parse_actions(text), key_frames_only=True)
    with pytest.raises(InvalidInputError, match="at most 2"):
        from_poses(integrate(ACTIONS), max_frames=2)
