"""Procedural indoor rooms with parametric furniture, and a CPU ray-cast renderer for them.

World frame of a room: metres, right-handed, x right, **y down**, z forward; the origin is the centre of the floor, so
heights above the floor are negative y. A camera with identity rotation looks along +z and is level.
"""

from teacher_service.scenes.anchors import anchor_pose
from teacher_service.scenes.furniture import CATEGORIES
from teacher_service.scenes.layout import build_room
from teacher_service.scenes.palette import COLOURS
from teacher_service.scenes.renderer import SceneRenderer, View, object_boxes
from teacher_service.scenes.room import Room, SceneObject

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "Room",
    "SceneObject",
    "SceneRenderer",
    "View",
    "anchor_pose",
    "build_room",
    "object_boxes",
]
