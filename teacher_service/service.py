"""The teacher's logic: which world imagines what, and what its gates say. Knows no gRPC."""

from collections.abc import Iterator, Mapping, Sequence

from teacher_service.gating import Gating
from teacher_service.paths import Waypoint
from teacher_service.worlds.base import Batching, ImagineSpec, Photo, Warmable, World, imagine_many
from world2vlm.bundles import Frame
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.worlds import WorldInfo


class Teacher:
    """A set of worlds.

    Args:
        worlds: in order of preference; the first that takes an anchor is the default for its kind.
        made_with: by a world's name, whatever else than its digest its frames are a function of: options, gates.
        gating: what judges the frames; None = nothing but the worlds themselves.
    """

    def __init__(
        self, worlds: Sequence[World], made_with: Mapping[str, str] | None = None, gating: Gating | None = None
    ) -> None:
        self._worlds = {world.info.name: world for world in worlds}
        self._made_with = made_with or {}
        self._gating = gating

    def describe(self) -> list[WorldInfo]:
        """Return what each world says about itself."""
        return [world.info for world in self._worlds.values()]

    def identity(self, name: str) -> str:
        """What the frames of a world are a function of, the request not counted."""
        return f"{name} {self._worlds[name].info.digest} {self._made_with.get(name, '')}"

    def warm(self) -> None:
        """Warm up the worlds that need it.

        Raises:
            World2VLMError: one can't; says what is missing.
        """
        for world in self._worlds.values():
            if isinstance(world, Warmable):
                world.warm()

    def imagine(self, name: str, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a trajectory from the world called `name`; empty = the default for the anchor.

        Raises:
            NotFoundError: no such world.
            InvalidInputError: the world takes no such anchor.
            GateRejectedError: the world rejected the trajectory.
        """
        return self.imagine_many(name, [spec])[0]

    def imagine_many(self, name: str, specs: Sequence[ImagineSpec]) -> list[Iterator[Frame]]:
        """The frames of several trajectories from one anchor, made at once by a world that can; see `imagine`."""
        info = self.choose(name, "photo" if isinstance(specs[0].anchor, Photo) else "scene")
        frames, gating = imagine_many(self._worlds[info.name], specs), self._gating
        return frames if gating is None else [gating(info, *each) for each in zip(specs, frames, strict=True)]

    def batching(self, name: str, path: Sequence[Waypoint]) -> tuple[int, str]:
        """How many paths of one photo a world makes at once, and what this one must have in common with the others."""
        world = self._worlds[name]
        if not isinstance(world, Batching) or world.max_batch == 1:
            return 1, ""
        return world.max_batch, world.batch_key(path)

    def choose(self, name: str, kind: str) -> WorldInfo:
        """Return the world that a request for an anchor of a kind, `photo` or `scene`, gets.

        Raises:
            NotFoundError: no such world; says how to get it.
            InvalidInputError: the world takes no such anchor.
        """
        takers = [info for info in self.describe() if getattr(info, f"takes_{kind}s")]
        if not name:
            if not takers:
                raise NotFoundError(f"no world here takes a {kind}")
            return takers[0]
        if name not in self._worlds:
            raise NotFoundError(
                f"no world {name!r} is served here; the worlds are {', '.join(self._worlds)}. Install the package that "
                f"has it, and add it to the teacher's setting worlds (WORLD2VLM_WORLDS)"
            )
        info = self._worlds[name].info
        if info not in takers:
            raise InvalidInputError(f"the world {name!r} takes no {kind}")
        return info
