"""The port that every world implements, and what goes through it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from teacher_service.paths import Waypoint
from world2vlm.bundles import Frame
from world2vlm.cameras import Floats
from world2vlm.images import encode_png
from world2vlm.worlds import WorldInfo


@dataclass(frozen=True)
class Photo:
    """An anchor from outside.

    Attributes:
        pixels: uint8 (height, width, 3).
        intrinsics: K, float64 (3, 3), in its pixels.
        depth: float32 (height, width), metres along z, 0 or non-finite = unknown; None = nothing is known.
    """

    pixels: NDArray[np.uint8]
    intrinsics: Floats
    depth: NDArray[np.float32] | None = None

    @property
    def digest(self) -> str:
        """The sha256 of its pixels, K and depth."""
        depth = np.zeros(0, np.float32) if self.depth is None else self.depth
        digest = hashlib.sha256(repr((self.pixels.shape, depth.shape)).encode())
        for part in (self.pixels, self.intrinsics, depth):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    def frame(self, waypoint: Waypoint, pixels: NDArray[np.uint8], observed_png: bytes = b"", **scores: float) -> Frame:
        """Another view of what it shows, at a waypoint: of the same size and through the same K."""
        height, width = self.pixels.shape[:2]
        return Frame(
            png=encode_png(pixels),
            c2w=waypoint.c2w,
            intrinsics=self.intrinsics,
            size=(width, height),
            actions_step=waypoint.actions_step,
            key_frame=waypoint.key_frame,
            scores=scores,
            observed_png=observed_png,
        )


@dataclass(frozen=True)
class ScenePoint:
    """An anchor in a procedural scene: the scene's seed, and which of its anchor poses."""

    seed: int
    index: int


@dataclass(frozen=True)
class ImagineSpec:
    """What to imagine.

    Attributes:
        anchor: where the path starts.
        path: the waypoints, the anchor's own first.
        seed: of whatever the world does at random; the same request gives the same bytes.
        size: (width, height) of a scene's frames in pixels; a photo keeps its own.
        with_instances: also make instance maps, where the world knows instances.
        is_cancelled: whether nobody waits for the frames any more; a world asks between two steps of its own.
        on_step: told (done, total) after each step by a world that makes all frames at once, so that who waits sees it.
    """

    anchor: Photo | ScenePoint
    path: tuple[Waypoint, ...]
    seed: int = 0
    size: tuple[int, int] = (128, 128)
    with_instances: bool = False
    is_cancelled: Callable[[], bool] = lambda: False
    on_step: Callable[[int, int], None] = lambda done, total: None


class World(Protocol):
    """A teacher backend. As many threads imagine at once as `info.lanes` says, or as the service has."""

    @property
    def info(self) -> WorldInfo:
        """What this world is, can do, and may be used for."""
        ...

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield one frame for every waypoint, in order, each as soon as it is made.

        The caller sends only the kinds of anchor that `info` names. Not asking for the next frame stops the work, and
        so does `spec.is_cancelled` within one step of the world's own: the frames then end early. The pose and the
        intrinsics of a frame are those that were really used, after any snapping or cropping, and its `observed_png`
        says what of it the world filled in.

        Raises:
            InvalidInputError: the anchor lacks something that this path needs.
            GateRejectedError: a gate rejected the trajectory; frames before it may have been yielded.
        """
        ...


@runtime_checkable
class Batching(Protocol):
    """A world that can make several paths of one photo at once."""

    @property
    def max_batch(self) -> int:
        """How many at most; 1 = one after the other."""
        ...

    def batch_key(self, path: Sequence[Waypoint]) -> str:
        """What a path must have in common with others of its photo to be made at once with them. Quick."""
        ...

    def imagine_many(self, specs: Sequence[ImagineSpec]) -> list[Iterator[Frame]]:
        """The frames of each path, as `World.imagine` yields them; one thread reads them all, in any order.

        What is wrong with one path is raised where its own frames are read, what is wrong with all of them wherever
        frames are. A path that is cancelled does not stop the others.

        Raises:
            InvalidInputError: the paths do not start from one photo.
        """
        ...


def imagine_many(world: World, specs: Sequence[ImagineSpec]) -> list[Iterator[Frame]]:
    """The frames of each path, made at once by a world that can."""
    if len(specs) > 1 and isinstance(world, Batching):
        return world.imagine_many(specs)
    return [world.imagine(spec) for spec in specs]


@runtime_checkable
class Warmable(Protocol):
    """A world that must be warmed up; the service says that it serves once all are warm."""

    def warm(self) -> None:
        """Load what is needed, and run it once, so that the first request is as quick as any other. Called once.

        Raises:
            World2VLMError: it can't; says what is missing. The service then ends.
        """
        ...


def source_digest(paths: Iterable[Path]) -> str:
    """Return the sha256 over source files, for worlds whose code acts as their weights."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
