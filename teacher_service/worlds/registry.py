"""Worlds by name: an entry point of the group `world2vlm.worlds` makes one from the teacher's settings."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from teacher_service.options import Options, read_table
from teacher_service.worlds.base import World
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.settings import TeacherSettings

GROUP = "world2vlm.worlds"

MakeWorld = Callable[[TeacherSettings], World]
"""What an entry point names. It raises `NotFoundError` with the remedy where what the world needs is not installed."""


def make_worlds(settings: TeacherSettings) -> list[World]:
    """Make the worlds that the settings name, in their order.

    Raises:
        NotFoundError: no such world is installed, or something that it needs is not; says how to install it.
        InvalidInputError: options of a world that is not served, or bad ones.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    stray = set(settings.world_options) - set(settings.worlds)
    if stray:
        raise InvalidInputError(f"world_options for worlds that are not served: {', '.join(sorted(stray))}")
    return [_find(known, name)(settings) for name in settings.worlds]


def read_options(settings: TeacherSettings, name: str, kind: type[Options]) -> Options:
    """A world's own options as a dataclass whose configuration forbids what it does not know.

    Raises:
        InvalidInputError: an unknown key or a bad value, named.
    """
    return read_table(settings.world_options.get(name, {}), kind, f"world_options.{name}")


def _find(known: Mapping[str, EntryPoint], name: str) -> MakeWorld:
    if name not in known:
        raise NotFoundError(f"no world {name!r} is installed; installed are {_names(sorted(known))}")
    make: MakeWorld = known[name].load()
    return make


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
