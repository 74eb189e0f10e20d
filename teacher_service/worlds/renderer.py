"""The exact world: procedural rooms, ray-cast, with the objects in view."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from teacher_service import scenes
from teacher_service.gates import check_clearance, check_objects
from teacher_service.paths import Waypoint, positions_along
from teacher_service.recent import Recent
from teacher_service.worlds.base import ImagineSpec, ScenePoint, source_digest
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

FOV_DEG = 90.0
_PATH_SPACING_M = 0.05


class RendererWorld:
    """Renders procedural rooms.

    Args:
        min_clearance_m: the collision gate's distance; 0 turns it off.
        min_object_area: the empty-view gate's share of a key frame's pixels; 0 turns it off.
        cache: furnished rooms kept in memory.
    """

    def __init__(self, min_clearance_m: float = 0.25, min_object_area: float = 0.006, cache: int = 32) -> None:
        self._min_clearance_m = min_clearance_m
        self._min_object_area = min_object_area
        self._rooms: Recent[int, _CachedRoom] = Recent(cache)
        self.info = WorldInfo(
            name="renderer",
            description="Furnished procedural rooms, ray-cast: exact poses, depth and objects",
            metric=True,
            generative=False,
            takes_scenes=True,
            takes_photos=False,
            licence="Apache-2.0",
            outputs_may_train=True,
            digest=source_digest(Path(scenes.__path__[0]).glob("*.py")),
        )

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a path through a room; see `World.imagine`.

        Raises:
            GateRejectedError: `anchor` (the room has no such anchor pose), `collision`, or `empty_view`.
        """
        if not isinstance(spec.anchor, ScenePoint):
            raise InvalidInputError("the renderer takes scenes, not photos")
        seed = spec.anchor.seed
        room = self._rooms.get(seed, lambda: _CachedRoom(seed))
        start = room.anchor(spec.anchor.index)
        clearances = self._clearances(room, start, spec.path)
        intrinsics = intrinsics_from_fov(FOV_DEG, *spec.size)
        for index, waypoint in enumerate(spec.path):
            if spec.is_cancelled():
                return
            view = room.render(start @ waypoint.c2w, intrinsics, spec.size)
            objects = tuple(
                ObjectView(item.instance_id, item.category, item.colour, Box(*corners), area)
                for item, corners, area in scenes.object_boxes(view, room.room)
            )
            if waypoint.key_frame:
                check_objects(objects, self._min_object_area, index)
            yield Frame(
                png=encode_png(view.rgb),
                c2w=waypoint.c2w,
                intrinsics=intrinsics,
                size=spec.size,
                actions_step=waypoint.actions_step,
                key_frame=waypoint.key_frame,
                objects=objects,
                instances_png=encode_png(view.instances) if spec.with_instances else b"",
                scores={"clearance_m": clearances[index]},
            )

    def _clearances(self, room: "_CachedRoom", start: Floats, path: tuple[Waypoint, ...]) -> list[float]:
        """Return the least clearance on the way to each waypoint, in metres."""
        ways = list(positions_along(path, _PATH_SPACING_M))
        points = np.concatenate(ways) @ start[:3, :3].T + start[:3, 3]
        # All points at once: each call goes through all the furniture.
        clearances = room.room.clearance(points[:, 0], points[:, 2])
        found: list[float] = np.minimum.reduceat(clearances, np.cumsum([0, *map(len, ways[:-1])])).tolist()
        check_clearance(np.array(found), self._min_clearance_m)
        return found


def make(settings: TeacherSettings) -> RendererWorld:
    """Make the world from the teacher's settings."""
    return RendererWorld(settings.min_clearance_m, settings.min_object_area, settings.scene_cache)


class _CachedRoom:
    """A room with its renderer, for one thread at a time."""

    def __init__(self, seed: int) -> None:
        self.room = scenes.build_room(seed)
        self._renderer = scenes.SceneRenderer(self.room)
        self._anchors: dict[int, Floats] = {}
        self._lock = threading.Lock()

    def anchor(self, index: int) -> Floats:
        with self._lock:
            if index not in self._anchors:
                try:
                    self._anchors[index] = scenes.anchor_pose(self.room, index)
                except ValueError as error:
                    raise GateRejectedError("anchor", float(index), str(error)) from error
            return self._anchors[index]

    def render(self, c2w: Floats, intrinsics: Floats, size: tuple[int, int]) -> scenes.View:
        with self._lock:
            return self._renderer.render(c2w, intrinsics, *size)
