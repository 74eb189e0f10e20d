"""What all worlds have in common that make a trajectory as a video with a diffusers pipeline. Imports no torch."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher_service.paths import Waypoint, from_actions
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.diffusion_options import VideoOptions
from teacher_service.worlds.framing import Track, fit_photo, lay_track
from world2vlm.actions import Action, Primitive
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.images import encode_png
from world2vlm.worlds import WorldInfo

_WAIT_S = 0.05
_FOV_DEG = 60.0


class Stopped(Exception):
    """Nobody waits for the frames any more."""


@dataclass(frozen=True)
class Audience:
    """Who waits for the videos that are being made."""

    specs: Sequence[ImagineSpec]

    def check(self) -> None:
        """Go on.

        Raises:
            Stopped: nobody waits any more.
        """
        if all(spec.is_cancelled() for spec in self.specs):
            raise Stopped

    def tell(self, done: int, total: int) -> None:
        """Say how many steps are done, and go on; samplers call it after each.

        Raises:
            Stopped: nobody waits any more.
        """
        for spec in self.specs:
            spec.on_step(done, total)
        self.check()


@dataclass(frozen=True)
class Film:
    """One video.

    Attributes:
        pixels: uint8 (F, height, width, 3).
        seen: bool (F, height, width), True where the photo shows what is there.
    """

    pixels: NDArray[np.uint8]
    seen: NDArray[np.bool_]


class VideoWorld(ABC):
    """Imagines whole trajectories, one call of a model at a time: the model is the one owner of its device.

    Frames are the photo's middle, cut and scaled to the model's size, and K with it. Up to where the camera first
    moves they are the photo itself, without any model. They come as a video does: all at once, when it is whole.

    Args:
        info: what the world says about itself.
        options: as the settings give them.
        stride: the model makes `stride` k + 1 frames.
    """

    def __init__(self, info: WorldInfo, options: VideoOptions, stride: int) -> None:
        self.info = info
        self._options = options
        self._stride = stride
        self._turn = threading.Lock()

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a path from a photo's camera; see `World.imagine`.

        Raises:
            InvalidInputError: the path needs too many frames, or the photo has too little of the frames' shape.
            GateRejectedError: a gate of the world's rejected the path.
            OverloadedError: the device has too little free memory; says what to change.
        """
        for _index, frame in self.imagine_many([spec]):
            yield frame

    def imagine_many(self, specs: Sequence[ImagineSpec]) -> Iterator[tuple[int, Frame]]:
        """Yield the frames of several paths from one photo, (index of the path, frame), one path after the other.

        The photo and the prompt are encoded once, and up to `max_batch` paths go through the model at once where the
        pipeline can. Batches round differently, so a path's frames may differ by a level from those that `imagine`
        gives. The work stops when all paths are cancelled, or at the first that a gate rejects.

        Raises:
            InvalidInputError: as `imagine`; or the paths start from different photos.
            GateRejectedError, OverloadedError: as `imagine`.
        """
        photo = fit_photo(self._one_photo(specs), self._options.width, self._options.height)
        tracks = [self._track(spec) for spec in specs]
        for spec in specs:
            self._check(photo, spec.path)
        still = [_still(spec.path) for spec in specs]
        for index, spec in enumerate(specs):
            for waypoint in spec.path[: still[index]]:
                yield index, photo.frame(waypoint, photo.pixels, observed_share=1.0)
        moving = [index for index, spec in enumerate(specs) if still[index] < len(spec.path)]
        batch = self._options.max_batch
        for some in (moving[start : start + batch] for start in range(0, len(moving), batch)):
            asked = [specs[index] for index in some]
            audience = Audience(asked)
            try:
                with self._owning(audience):
                    films = self._films(
                        photo, [tracks[index] for index in some], [spec.seed for spec in asked], audience
                    )
            except Stopped:
                return
            for index, film in zip(some, films, strict=True):
                for place, waypoint in enumerate(specs[index].path):
                    if place >= still[index]:
                        yield index, _frame(photo, waypoint, film, tracks[index].at[place])

    def warm(self) -> None:
        """Make one short video of nothing, so that the first request finds everything compiled and in its place."""
        width, height = self._options.width, self._options.height
        grey = Photo(np.full((height, width, 3), 127, np.uint8), intrinsics_from_fov(_FOV_DEG, width, height))
        turn = from_actions([Action(Primitive.TURN_RIGHT, 1.0)])
        for _made in self.imagine(ImagineSpec(grey, turn)):
            pass

    @abstractmethod
    def _films(self, photo: Photo, tracks: Sequence[Track], seeds: Sequence[int], audience: Audience) -> list[Film]:
        """Make one video for every track, from a photo that has the model's size."""

    def _check(self, photo: Photo, path: Sequence[Waypoint]) -> None:  # noqa: B027
        """Refuse what the model can't do, before anything is made. Worlds that need more than a photo say so here."""

    def _prompt(self, photo: Photo) -> str:
        """What the photo shows, in words."""
        return self._options.prompt

    def _one_photo(self, specs: Sequence[ImagineSpec]) -> Photo:
        photo = specs[0].anchor
        if not isinstance(photo, Photo):
            raise InvalidInputError(f"the world {self.info.name} takes photos, not scenes")
        if len(specs) > 1 and len({spec.anchor.digest for spec in specs if isinstance(spec.anchor, Photo)}) > 1:
            raise InvalidInputError("paths that are imagined together must start from one photo")
        return photo

    def _track(self, spec: ImagineSpec) -> Track:
        options = self._options
        track = lay_track(spec.path, self._stride, options.step_m, options.step_deg)
        if len(track.poses) > options.max_frames:
            raise InvalidInputError(
                f"the path needs {len(track.poses)} frames of at most {options.step_m:g} m and {options.step_deg:g} "
                f"degrees each; the world {self.info.name} makes at most {options.max_frames}: send a shorter path"
            )
        return track

    @contextmanager
    def _owning(self, audience: Audience) -> Iterator[None]:
        """Wait for the model's device, for as long as somebody waits for the frames."""
        audience.check()
        while not self._turn.acquire(timeout=_WAIT_S):
            audience.check()
        try:
            yield
        finally:
            self._turn.release()


def _still(path: Sequence[Waypoint]) -> int:
    """Return after how many waypoints the camera first moves."""
    moved = (index for index, waypoint in enumerate(path) if not np.array_equal(waypoint.c2w, np.eye(4)))
    return next(moved, len(path))


def _frame(photo: Photo, waypoint: Waypoint, film: Film, place: int) -> Frame:
    seen = film.seen[place]
    observed_png = encode_png(seen.astype(np.uint8) * np.uint8(255))
    return photo.frame(waypoint, film.pixels[place], observed_png, observed_share=float(seen.mean()))
