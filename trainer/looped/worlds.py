"""World models in the loop: what a camera would see from the first image on, asked of the teacher service."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.looped.cases import Start
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats, integrate
from world2vlm.images import decode_image

Depth = Callable[[Start], NDArray[np.float32]]
"""Depth of the first image, float32 (height, width), metres along z; 0 or non-finite = unknown."""


class World(Protocol):
    """Imagines views from where a first image was taken."""

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        """The view after each of the actions, one after the other: one call of the world model.

        Raises:
            GateRejectedError: a gate of the teacher rejected the path.
            UnavailableError: nobody answers.
        """
        ...


class Teacher(Protocol):
    """What a world needs of `world2vlm.clients.teacher.TeacherClient`."""

    def imagine_scene(
        self, scene: int, anchor: int, path: Floats, *, world: str, width: int, height: int
    ) -> list[Frame]:
        """Frames at poses relative to an anchor of a scene, the anchor's own first."""
        ...

    def imagine_photo(
        self, image: bytes, path: Floats, *, depth: NDArray[np.float32] | None, intrinsics: Floats, world: str
    ) -> list[Frame]:
        """Frames at poses relative to a photo's camera, the photo first."""
        ...


@dataclass(frozen=True)
class SceneWorld:
    """A teacher that knows the scene itself, and where in it the camera stands: an oracle."""

    teacher: Teacher
    world: str = "renderer"

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        """See `World.imagine`."""
        poses = integrate(actions, start.c2w)[1:]
        width, height = start.size
        frames = self.teacher.imagine_scene(
            start.scene, start.anchor, poses, world=self.world, width=width, height=height
        )
        return _pictures(frames)


@dataclass(frozen=True)
class PhotoWorld:
    """A teacher that is given the first image, and its depth where there is one: the true depth is an oracle, too."""

    teacher: Teacher
    depth: Depth | None = None
    world: str = "geometric"

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        """See `World.imagine`."""
        frames = self.teacher.imagine_photo(
            start.png,
            integrate(actions)[1:],
            depth=self.depth(start) if self.depth else None,
            intrinsics=start.intrinsics,
            world=self.world,
        )
        return _pictures(frames)


class CountedWorld:
    """A world that counts.

    Attributes:
        calls: of the world model.
        views: that it was asked to imagine.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.calls = self.views = 0

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        """See `World.imagine`."""
        self.calls += 1
        self.views += len(actions)
        return self._world.imagine(start, actions)


def _pictures(frames: Sequence[Frame]) -> list[Image.Image]:
    return [decode_image(frame.png) for frame in frames[1:]]
