"""Worlds around worlds: what another imagines, with something done to its frames."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

from teacher_service.paths import Waypoint
from teacher_service.worlds.base import Batching, ImagineSpec, Photo, Warmable, World, imagine_many
from world2vlm.bundles import Frame
from world2vlm.worlds import WorldInfo


class WrappedWorld(ABC):
    """What all of them have in common: they are warm, and make several paths at once, where the other can.

    Args:
        world: who imagines.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def info(self) -> WorldInfo:
        """What the wrapped world says."""
        return self._world.info

    @property
    def max_batch(self) -> int:
        """The wrapped world's; see `Batching`."""
        return self._world.max_batch if isinstance(self._world, Batching) else 1

    def batch_key(self, path: Sequence[Waypoint]) -> str:
        """The wrapped world's for the path that it gets; see `Batching`."""
        return self._world.batch_key(self._way(tuple(path))) if isinstance(self._world, Batching) else ""

    def warm(self) -> None:
        """Warm the wrapped world up; see `Warmable`."""
        if isinstance(self._world, Warmable):
            self._world.warm()

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the wrapped world's frames with what is done to them; see `World.imagine`."""
        return self.imagine_many([spec])[0]

    def imagine_many(self, specs: Sequence[ImagineSpec]) -> list[Iterator[Frame]]:
        """The same for several paths; see `Batching`."""
        return list(map(self._passed, specs, imagine_many(self._world, list(map(self._asked, specs)))))

    def _asked(self, spec: ImagineSpec) -> ImagineSpec:
        return replace(spec, path=self._way(spec.path)) if isinstance(spec.anchor, Photo) else spec

    def _way(self, path: tuple[Waypoint, ...]) -> tuple[Waypoint, ...]:
        """The path from a photo that the wrapped world is asked for."""
        return path

    @abstractmethod
    def _passed(self, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield what becomes of the wrapped world's frames."""
