"""Procedural rooms: what they hold, that nothing overlaps, and where anchor cameras stand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from teacher_service.scenes import CATEGORIES, COLOURS, Room, SceneObject, SceneRenderer, anchor_pose, build_room
from teacher_service.scenes import object_boxes as boxes_of
from teacher_service.scenes.anchors import CLEARANCE, FAR, HALF_ANGLE, NEAR
from teacher_service.scenes.layout import MARGIN

SEEDS = range(60)


@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return [build_room(seed) for seed in SEEDS]


def perimeter(item: SceneObject) -> np.ndarray:
    """Return points along the edge of a footprint, (N,2)."""
    corners = item.corners()
    steps = np.linspace(0, 1, 40)[:, None]
    return np.concatenate([a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])


def vertices_of(room: Room, item: SceneObject) -> np.ndarray:
    """Return the vertices (N,3) of one object's faces."""
    faces = room.mesh.faces[room.mesh.instance == item.instance_id]
    return room.mesh.vertices[np.unique(faces)]


def test_same_seed_gives_the_same_room_and_another_seed_another() -> None:
    first, again, other = build_room(7), build_room(7), build_room(8)
    assert first.objects == again.objects
    assert first.light == again.light
    assert first.mesh.vertices.tobytes() == again.mesh.vertices.tobytes()
    assert first.mesh.colour.tobytes() == again.mesh.colour.tobytes()
    assert first.objects != other.objects


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed"):
        build_room(-1)


def test_sizes_ids_and_names(rooms: list[Room]) -> None:
    for room in rooms:
        assert 4.5 <= room.width <= 7.0
        assert 4.5 <= room.depth <= 7.0
        assert 2.6 <= room.height <= 2.8
        assert 5 <= len(room.objects) <= 8
        assert [item.instance_id for item in room.objects] == list(range(1, len(room.objects) + 1))
        assert set(np.unique(room.mesh.instance)) == set(range(len(room.objects) + 1))
        assert {item.colour for item in room.objects} <= set(COLOURS)


def test_every_category_and_colour_occurs(rooms: list[Room]) -> None:
    assert {item.category for room in rooms for item in room.objects} == set(CATEGORIES)
    assert {item.colour for room in rooms for item in room.objects} == set(COLOURS)


def test_about_two_thirds_of_the_rooms_repeat_a_category(rooms: list[Room]) -> None:
    counts = [Counter(item.category for item in room.objects) for room in rooms]
    assert all(sum(number > 1 for number in count.values()) <= 1 for count in counts)
    share = float(np.mean([max(count.values()) > 1 for count in counts]))
    assert 0.5 <= share <= 0.85
    twins = [
        {item.colour for item in room.objects if count[item.category] > 1}
        for room, count in zip(rooms, counts, strict=True)
        if max(count.values()) > 1
    ]
    assert np.mean([len(colours) > 1 for colours in twins]) > 0.6


def test_furniture_stays_off_other_furniture_and_inside_the_walls(rooms: list[Room]) -> None:
    for room in rooms:
        standing = [item for item in room.objects if item.support is None]
        for item in standing:
            edge = perimeter(item)
            assert (np.abs(edge) < np.array([room.width, room.depth]) / 2 - 0.03).all(), (room.seed, item)
            for other in standing:
                if other is not item:
                    assert other.distance(edge[:, 0], edge[:, 1]).min() >= MARGIN - 1e-9, (room.seed, item, other)
                    assert item.distance(other.x, other.z) > 0


def test_meshes_keep_to_their_footprint_and_height(rooms: list[Room]) -> None:
    for room in rooms:
        for item in room.objects:
            points = vertices_of(room, item)
            assert item.distance(points[:, 0], points[:, 2]).max() < 1e-3, (room.seed, item)
            heights = -points[:, 1]
            assert heights.min() == pytest.approx(item.base, abs=1e-3)
            assert heights.max() == pytest.approx(item.base + item.size[1], abs=1e-3)
            assert item.base >= 0
            assert heights.max() < room.height - 0.2


def test_small_things_stand_on_top_of_their_support(rooms: list[Room]) -> None:
    carried = [(room, item) for room in rooms for item in room.objects if item.support is not None]
    assert carried
    for room, item in carried:
        assert item.support is not None
        host = room.objects[item.support - 1]
        assert host.instance_id == item.support
        assert item.base == pytest.approx(host.base + host.size[1])
        assert host.distance(item.corners()[:, 0], item.corners()[:, 1]).max() < 0


def test_clearance_is_the_distance_to_the_nearest_thing(rooms: list[Room]) -> None:
    for room in rooms[:10]:
        rng = np.random.default_rng(room.seed)
        x, z = rng.uniform(-0.5, 0.5, 50) * room.width, rng.uniform(-0.5, 0.5, 50) * room.depth
        found = room.clearance(x, z)
        edges = np.concatenate([perimeter(item) for item in room.objects])
        nearest = np.hypot(edges[:, 0, None] - x, edges[:, 1, None] - z).min(axis=0)
        walls = np.minimum(room.width / 2 - np.abs(x), room.depth / 2 - np.abs(z))
        free = found > 0
        assert free.any()
        np.testing.assert_allclose(found[free], np.minimum(nearest, walls)[free], atol=0.03)
        for item in room.objects:
            assert room.clearance(item.x, item.z) < 0
        assert room.clearance(room.width, 0.0) < 0


def test_anchors_are_clear_level_and_see_two_objects(rooms: list[Room]) -> None:
    K = np.array([[32.0, 0, 32], [0, 32, 32], [0, 0, 1]])
    for room in rooms[:30]:
        for index in range(3):
            pose = anchor_pose(room, index)
            np.testing.assert_array_equal(pose, anchor_pose(room, index))
            np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
            np.testing.assert_array_equal(pose[1, :3], [0, 1, 0])
            assert 1.2 <= -pose[1, 3] <= 1.4
            assert room.clearance(pose[0, 3], pose[2, 3]) >= CLEARANCE
            view = SceneRenderer(room).render(pose, K, 64, 64)
            seen = 0
            for item, _, area in boxes_of(view, room):
                local = pose[:3, :3].T @ (np.array([item.x, pose[1, 3], item.z]) - pose[:3, 3])
                bearing = abs(np.degrees(np.arctan2(local[0], local[2])))
                seen += area > 0.009 and bearing <= HALF_ANGLE and NEAR <= np.hypot(local[0], local[2]) <= FAR
            assert seen >= 2, (room.seed, index)


def test_anchor_indices_give_different_poses() -> None:
    room = build_room(3)
    poses = {anchor_pose(room, index).tobytes() for index in range(8)}
    assert len(poses) == 8
