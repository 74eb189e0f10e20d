"""The teacher's logic: which world imagines what. Knows no gRPC."""

from collections.abc import Iterator, Sequence

from teacher_service.worlds.base import Imagined, ImagineSpec, Photo, World
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.worlds import WorldInfo

MIN_SIZE, MAX_SIZE = 16, 512


class Teacher:
    """A set of worlds.

    Args:
        worlds: in order of preference; the first that takes an anchor is the default for its kind.
    """

    def __init__(self, worlds: Sequence[World]) -> None:
        self._worlds = {world.info.name: world for world in worlds}

    def describe(self) -> list[WorldInfo]:
        """Return what each world says about itself."""
        return [world.info for world in self._worlds.values()]

    def imagine(self, name: str, spec: ImagineSpec) -> Iterator[Imagined]:
        """Yield the frames of a trajectory from the world called `name`; empty = the default for the anchor.

        Raises:
            NotFoundError: no such world.
            InvalidInputError: the world takes no such anchor, or a bad size.
            GateRejectedError: a gate rejected the trajectory.
        """
        world = self._choose(name, spec)
        if not all(MIN_SIZE <= side <= MAX_SIZE for side in spec.size):
            raise InvalidInputError(f"frames must be {MIN_SIZE} to {MAX_SIZE} pixels wide and high, not {spec.size}")
        return world.imagine(spec)

    def _choose(self, name: str, spec: ImagineSpec) -> World:
        kind = "photo" if isinstance(spec.anchor, Photo) else "scene"
        takers = [world for world in self._worlds.values() if getattr(world.info, f"takes_{kind}s")]
        if not name:
            if not takers:
                raise NotFoundError(f"no world here takes a {kind}")
            return takers[0]
        world = self._worlds.get(name)
        if world is None:
            raise NotFoundError(f"no world {name!r}; the worlds are {', '.join(self._worlds)}")
        if world not in takers:
            raise InvalidInputError(f"the world {name!r} takes no {kind}")
        return world
