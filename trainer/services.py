"""The two services as the trainer's ports see them, over gRPC."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from trainer.sources import AnchorKind
from world2vlm.actions import Action
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.client import Student
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.licences import stamp
from world2vlm.settings import Settings


class TeacherService:
    """`trainer.sources.Teacher` by the teacher service; connects on first use, so in the process that asks.

    Args:
        settings: where it is.
        timeout: seconds that a call may take.
    """

    def __init__(self, settings: Settings, timeout: float = 300.0) -> None:
        self._settings = settings
        self._timeout = timeout

    @cached_property
    def _client(self) -> TeacherClient:
        return TeacherClient(self._settings.teacher_url, self._settings.client_tls, self._timeout)

    def world(self, name: str, kind: AnchorKind) -> Mapping[str, Any]:
        """What bundles say about a world.

        Raises:
            NotFoundError: the teacher has no such world.
            InvalidInputError: it does not take such anchors.
        """
        worlds = self._client.describe()
        takers = [world.name for world in worlds if (world.takes_photos if kind == "photo" else world.takes_scenes)]
        for world in worlds:
            if world.name == name:
                if name not in takers:
                    others = ", ".join(takers) or "none"
                    raise InvalidInputError(f"the world {name!r} takes no {kind}s; the teacher's that do: {others}")
                return stamp(world)
        raise NotFoundError(
            f"the teacher has no world {name!r}; it has {', '.join(world.name for world in worlds)}: "
            f"set `worlds`; see docs/worlds.md"
        )

    def imagine(
        self, world: str, scene: int, anchor: int, actions: Sequence[Action], size: int, keep_rejected: bool
    ) -> list[Frame]:
        """The key frames of a trajectory through a scene."""
        return self._client.imagine_scene(
            scene,
            anchor,
            actions,
            world=world,
            width=size,
            height=size,
            key_frames_only=True,
            keep_rejected=keep_rejected,
        )

    def imagine_photo(
        self, world: str, png: bytes, intrinsics: Floats, actions: Sequence[Action], keep_rejected: bool
    ) -> list[Frame]:
        """All frames of a trajectory from a photo."""
        return self._client.imagine_photo(png, actions, intrinsics=intrinsics, world=world, keep_rejected=keep_rejected)


class StudentControl:
    """`trainer.promotion.Swapper` by the student service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _client(self) -> Student:
        token = self._settings.control_token.get_secret_value()
        return Student(self._settings.student_url, token, self._settings.client_tls)

    def swap(self, version: int) -> Mapping[str, Any]:
        """Have a version serve; return `from`, `to` and milliseconds by phase."""
        return self._client.swap(version)

    def roll_back(self) -> Mapping[str, Any]:
        """Have the version before serve again; return `from` and `to`."""
        return self._client.roll_back()
