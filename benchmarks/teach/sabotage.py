"""Worlds that are right, and the same worlds made wrong in a known way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.teach.panoramas import Panorama
from teacher_service import scenes
from world2vlm.boxes import Box
from world2vlm.bundles import ObjectView
from world2vlm.cameras import Floats, intrinsics_from_fov, yaw_matrix

SIZE = (128, 128)
Pixels = NDArray[np.uint8]


class Place(Protocol):
    """Somewhere that a camera can stand, with the anchor's pose as its origin."""

    intrinsics: Floats

    def shoot(self, c2w: Floats) -> Pixels:
        """What a camera at `c2w` (4, 4) sees."""
        ...


class Turntable:
    """A panorama: the camera can only turn."""

    def __init__(self, panorama: Panorama, fov_deg: float = 90.0) -> None:
        self._panorama = panorama
        self.intrinsics = intrinsics_from_fov(fov_deg, *SIZE)

    def shoot(self, c2w: Floats) -> Pixels:
        """What a camera at `c2w` sees, wherever it stands."""
        return self._panorama.view(c2w[:3, :3], self.intrinsics, SIZE)


class RoomPlace:
    """An anchor of a rendered room."""

    def __init__(self, seed: int, anchor: int = 0, fov_deg: float = 90.0) -> None:
        self._room = scenes.build_room(seed)
        self._renderer = scenes.SceneRenderer(self._room)
        self._anchor = scenes.anchor_pose(self._room, anchor)
        self.intrinsics = intrinsics_from_fov(fov_deg, *SIZE)

    def shoot(self, c2w: Floats) -> Pixels:
        """What a camera at `c2w` sees."""
        return self._view(c2w).rgb

    def depth(self) -> NDArray[np.float32]:
        """The anchor's depth, metres."""
        return self._view(np.eye(4)).depth

    def objects(self, c2w: Floats) -> tuple[ObjectView, ...]:
        """What is in view."""
        found = scenes.object_boxes(self._view(c2w), self._room)
        return tuple(ObjectView(i.instance_id, i.category, i.colour, Box(*box), area) for i, box, area in found)

    def clearance(self, c2w: Floats) -> float:
        """Metres from a camera at `c2w` to the nearest obstacle; negative inside of one."""
        point = (self._anchor @ c2w)[:3, 3]
        return float(self._room.clearance(point[:1], point[2:]).min())

    def _view(self, c2w: Floats) -> scenes.View:
        return self._renderer.render(self._anchor @ c2w, self.intrinsics, *SIZE)


@dataclass(frozen=True)
class Side:
    """A world: where it stands when it should stand at a pose, relative to some start, and what it does to pictures."""

    is_right: bool
    pose: Callable[[Floats], Floats] = lambda pose: pose
    picture: Callable[[Pixels, np.random.Generator], Pixels] = lambda pixels, rng: pixels


def scaled(pose: Floats, factor: float) -> Floats:
    """A pose with its rotation and its translation times `factor`."""
    made = np.eye(4)
    made[:3, :3] = cv2.Rodrigues(np.asarray(cv2.Rodrigues(pose[:3, :3])[0]) * factor)[0]
    made[:3, 3] = pose[:3, 3] * factor
    return made


def _turned(pose: Floats, degrees: float) -> Floats:
    """A pose turned by so much more the way that it is turned already, to the right where it is not."""
    made = pose.copy()
    made[:3, :3] = pose[:3, :3] @ yaw_matrix(degrees if pose[0, 2] >= 0 else -degrees)
    return made


def _exposed(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    made = 255 * np.clip(1.2 * pixels / 255, 0, 1) ** 0.9
    return np.asarray(np.rint(made), dtype=np.uint8)


def _worn(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A little blurred and noisy, as decoders of latents leave pictures."""
    soft = cv2.GaussianBlur(pixels, (0, 0), 0.45).astype(np.float64)
    return np.asarray(np.rint(np.clip(soft + rng.normal(0, 3, soft.shape), 0, 255)), dtype=np.uint8)


def _blurred(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.0), dtype=np.uint8)


def _flickering(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    made = pixels * (1.8 if rng.random() < 0.5 else 0.5)
    return np.asarray(np.rint(np.clip(made, 0, 255)), dtype=np.uint8)


RIGHT: Mapping[str, Side] = {
    "right": Side(True),
    "other exposure": Side(True, picture=_exposed),
    "soft, noisy": Side(True, picture=_worn),
}
WRONG: Mapping[str, Side] = {
    "opposite way": Side(False, lambda pose: scaled(pose, -1)),
    "no motion": Side(False, lambda pose: np.eye(4)),
    "0.75 of the way": Side(False, lambda pose: scaled(pose, 0.75)),
    "5 degrees more": Side(False, lambda pose: _turned(pose, 5)),
    "another place": Side(False, lambda pose: _turned(pose, 150)),
    "blurred": Side(False, picture=_blurred),
    "flickering": Side(False, picture=_flickering),
}
