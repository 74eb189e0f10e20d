"""The ray-cast renderer: geometry, determinism, masks and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from teacher_service.scenes import Room, SceneRenderer, View, anchor_pose, build_room, object_boxes
from teacher_service.scenes.anchors import level_pose

K64 = np.array([[32.0, 0, 32], [0, 32, 32], [0, 0, 1]])


def intrinsics(size: int) -> np.ndarray:
    return np.array([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1]])


def relative(forward: float, side: float, degrees: float) -> np.ndarray:
    """Return the pose of a camera that turned right by `degrees`, then moved."""
    pose = level_pose(0.0, 0.0, 0.0, np.radians(degrees))
    pose[:3, 3] = pose[:3, :3] @ np.array([side, 0.0, forward])
    return pose


def points_of(view: View, c2w: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Return the room coordinates (H*W,3) of every pixel's centre."""
    height, width = view.depth.shape
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=-1)
    return (rays * view.depth[..., None]).reshape(-1, 3) @ c2w[:3, :3].T + c2w[:3, 3]


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 48)])
def test_shapes_and_dtypes(width: int, height: int) -> None:
    room = build_room(1)
    K = np.array([[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]])
    view = SceneRenderer(room).render(anchor_pose(room, 0), K, width, height)
    assert (view.rgb.shape, view.rgb.dtype) == ((height, width, 3), np.uint8)
    assert (view.depth.shape, view.depth.dtype) == ((height, width), np.float32)
    assert (view.instances.shape, view.instances.dtype) == ((height, width), np.uint8)


def test_same_seed_renders_the_same_bytes() -> None:
    def render(seed: int) -> View:
        room = build_room(seed)
        return SceneRenderer(room).render(anchor_pose(room, 2), K64, 64, 64)

    first, again, other = render(11), render(11), render(12)
    assert first.rgb.tobytes() == again.rgb.tobytes()
    assert first.depth.tobytes() == again.depth.tobytes()
    assert first.rgb.tobytes() != other.rgb.tobytes()


def test_rooms_are_closed() -> None:
    for seed in range(12):
        room = build_room(seed)
        renderer = SceneRenderer(room)
        for degrees in (0, 90, 180, 270):
            view = renderer.render(anchor_pose(room, 0) @ relative(0, 0, degrees + 7), K64, 64, 64)
            assert np.isfinite(view.depth).all()
            assert view.depth.min() > 0
            assert 40 < view.rgb.mean() < 225


def test_nothing_is_seen_from_outside_looking_away() -> None:
    room = build_room(0)
    view = SceneRenderer(room).render(level_pose(0.0, 1.3, 40.0, 0.0), K64, 64, 64)
    assert np.isinf(view.depth).all()
    assert not view.rgb.any()
    assert not view.instances.any()


def test_wall_depth_is_metric() -> None:
    room = build_room(4)
    view = SceneRenderer(room).render(level_pose(0.0, room.height - 0.2, 0.0, 0.0), K64, 64, 64)
    # Just under the ceiling the middle rows look over all furniture onto the wall at z = depth / 2.
    np.testing.assert_allclose(view.depth[31:33, 30:34], room.depth / 2, atol=0.05)


@pytest.mark.parametrize(
    "motion", [(0.4, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 25.0), (0.2, 0.1, -15.0)]
)
def test_depth_reprojects_between_two_poses(motion: tuple[float, float, float]) -> None:
    size, agree, seen, hidden = 96, 0, 0, 0
    K = intrinsics(size)
    for seed in range(6):
        room = build_room(seed)
        renderer = SceneRenderer(room)
        pose = anchor_pose(room, 0)
        moved = pose @ relative(*motion)
        before, after = renderer.render(pose, K, size, size), renderer.render(moved, K, size, size)
        local = (points_of(before, pose, K) - moved[:3, 3]) @ moved[:3, :3]
        ahead = local[local[:, 2] > 0.1]
        column, row = (np.floor(K[i, i] * ahead[:, i] / ahead[:, 2] + K[i, 2]).astype(int) for i in (0, 1))
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        expected, actual = ahead[inside, 2], after.depth[row[inside], column[inside]]
        occluded = actual < expected * 0.97
        hidden += int(occluded.sum())
        seen += int((~occluded).sum())
        agree += int((actual[~occluded] <= expected[~occluded] * 1.03).sum())
    assert agree / seen >= 0.97
    assert hidden / (hidden + seen) < 0.12


def test_turning_right_moves_the_picture_left() -> None:
    shifts = []
    for seed in range(6):
        room = build_room(seed)
        renderer, pose = SceneRenderer(room), anchor_pose(room, 0)
        before = renderer.render(pose, K64, 64, 64).instances
        after = renderer.render(pose @ relative(0, 0, 10), K64, 64, 64).instances
        for item in room.objects:
            first, second = (np.nonzero(mask == item.instance_id)[1] for mask in (before, after))
            if min(len(first), len(second)) > 30:
                shifts.append(second.mean() - first.mean())
    # 10 degrees are 5.6 pixels at the middle of a 64 pixel picture and more towards its edges.
    assert len(shifts) >= 6
    assert -11 < np.median(shifts) < -4


def test_boxes_match_the_mask() -> None:
    checked = 0
    for seed in range(8):
        room = build_room(seed)
        view = SceneRenderer(room).render(anchor_pose(room, 1), K64, 64, 64)
        found = object_boxes(view, room)
        assert {item.instance_id for item, _, _ in found} == set(np.unique(view.instances).tolist()) - {0}
        for item, (x1, y1, x2, y2), area in found:
            rows, columns = np.nonzero(view.instances == item.instance_id)
            assert area == pytest.approx(len(rows) / 64**2)
            expected = [columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64]
            assert np.abs(np.array([x1, y1, x2, y2]) - np.array(expected) * 1000).max() <= 0.5
            assert all(isinstance(edge, int) for edge in (x1, y1, x2, y2))
            assert 0 <= x1 < x2 <= 1000
            assert 0 <= y1 < y2 <= 1000
            checked += 1
    assert checked >= 16


def test_objects_show_their_named_colour() -> None:
    hues = {"red": 0, "orange": 28, "yellow": 52, "green": 125, "cyan": 184, "blue": 230, "purple": 280}
    right = total = 0
    for seed in range(25):
        room = build_room(seed)
        view = SceneRenderer(room).render(anchor_pose(room, 0), intrinsics(96), 96, 96)
        for item, _, area in object_boxes(view, room):
            if item.colour != "white" and area > 0.01:
                hue = dominant_hue(view.rgb[view.instances == item.instance_id])
                nearest = min(hues, key=lambda name: abs((hue - hues[name] + 180) % 360 - 180))
                right, total = right + (nearest == item.colour), total + 1
    assert total > 30
    assert right / total > 0.95


def dominant_hue(rgb: np.ndarray) -> float:
    """Return the circular mean hue in degrees of pixels (N,3), weighted by their chroma."""
    r, g, b = rgb.astype(np.float64).T
    angle = np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b)
    weight = np.hypot(np.sqrt(3) * (g - b), 2 * r - g - b)
    return float(np.degrees(np.arctan2((weight * np.sin(angle)).sum(), (weight * np.cos(angle)).sum())) % 360)


def test_a_room_is_brighter_than_its_contact_shadows() -> None:
    room: Room = build_room(5)
    item = next(item for item in room.objects if item.support is None and item.base < 0.1)
    rows, columns = room.floor_light.shape
    row = int((item.z / room.depth + 0.5) * rows)
    column = int((item.x / room.width + 0.5) * columns)
    assert room.floor_light[row, column] < 0.6 < room.floor_light.max()
