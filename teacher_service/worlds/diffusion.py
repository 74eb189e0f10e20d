"""What all worlds have in common that make a trajectory as a video with a diffusers pipeline. Imports no torch."""

import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np

from teacher_service.paths import Waypoint, from_actions
from teacher_service.worlds.base import ImagineSpec, Photo
from teacher_service.worlds.diffusion_options import VideoOptions
from teacher_service.worlds.framing import Track, fit_photo, lay_track
from teacher_service.worlds.takes import Audience, Film, Stopped, Take
from world2vlm.actions import Action, Primitive
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import InvalidInputError, World2VLMError
from world2vlm.images import encode_png
from world2vlm.worlds import WorldInfo

_WAIT_S = 0.05
_FOV_DEG = 60.0
# By device: two models at work on one would need the memory of both at once.
_TURNS: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class VideoWorld(ABC):
    """Imagines whole trajectories, one call of a model at a time on a device, whichever world of these the model is.

    Frames are the photo's middle, cut and scaled to the model's size, and K with it. Up to where the camera first
    moves they are the photo itself, without any model. They come as a video does: all at once, when it is whole.

    Args:
        info: what the world says about itself.
        options: as the settings give them.
        stride: the model makes `stride` k + 1 frames.
        max_batch: videos that it makes at once.
    """

    def __init__(self, info: WorldInfo, options: VideoOptions, stride: int, max_batch: int = 1) -> None:
        self.info = info
        self.max_batch = max_batch
        self._options = options
        self._stride = stride
        self._turn = _TURNS[options.device]

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a path from a photo's camera; see `World.imagine`.

        Raises:
            InvalidInputError: the path needs too many frames, or the photo has too little of the frames' shape.
            GateRejectedError: a gate of the world's rejected the path.
            OverloadedError: the device has too little free memory; says what to change.
        """
        yield from self.imagine_many([spec])[0]

    def batch_key(self, path: Sequence[Waypoint]) -> str:
        """How many frames a path's video has: held longer than it needs, it would be another video."""
        return str(len(self._lay(path).poses))

    def imagine_many(self, specs: Sequence[ImagineSpec]) -> list[Iterator[Frame]]:
        """The frames of several paths from one photo; see `Batching`.

        The photo and the prompt are encoded once, and up to `max_batch` paths of one length go through the model at
        once. Batches round differently, so a path's frames may differ a little from those that `imagine` gives.

        Raises:
            InvalidInputError: the photo has too little of the frames' shape; or there are several.
        """
        photo = fit_photo(self._one_photo(specs), self._options.width, self._options.height)
        takes: dict[int, Take] = {}
        return [self._planned(photo, spec, takes) for spec in specs]

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

    def _planned(self, photo: Photo, spec: ImagineSpec, takes: dict[int, Take]) -> Iterator[Frame]:
        """Give a path its place in a take, if it needs one and nothing is wrong with it."""
        try:
            track = self._track(spec.path)
            self._check(photo, spec.path)
        except World2VLMError as error:
            return _refused(error)
        still, length = _still(spec.path), len(track.poses)
        if still == len(spec.path):
            return _photos(photo, spec.path)
        if length not in takes or len(takes[length].specs) == self.max_batch:
            takes[length] = Take(partial(self._shoot, photo))
        return _shown(photo, spec.path, still, track, takes[length].add(spec, track))

    def _shoot(self, photo: Photo, specs: Sequence[ImagineSpec], tracks: Sequence[Track]) -> list[Film]:
        audience = Audience(specs)
        with self._owning(audience):
            return self._films(photo, tracks, [spec.seed for spec in specs], audience)

    def _one_photo(self, specs: Sequence[ImagineSpec]) -> Photo:
        photo = specs[0].anchor
        if not isinstance(photo, Photo):
            raise InvalidInputError(f"the world {self.info.name} takes photos, not scenes")
        if len(specs) > 1 and len({spec.anchor.digest for spec in specs if isinstance(spec.anchor, Photo)}) > 1:
            raise InvalidInputError("paths that are imagined together must start from one photo")
        return photo

    def _lay(self, path: Sequence[Waypoint]) -> Track:
        return lay_track(path, self._stride, self._options.step_m, self._options.step_deg)

    def _track(self, path: Sequence[Waypoint]) -> Track:
        options, track = self._options, self._lay(path)
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


def _refused(error: World2VLMError) -> Iterator[Frame]:
    raise error
    yield


def _photos(photo: Photo, path: Sequence[Waypoint]) -> Iterator[Frame]:
    for waypoint in path:
        yield photo.frame(waypoint, photo.pixels, observed_share=1.0)


def _shown(
    photo: Photo, path: Sequence[Waypoint], still: int, track: Track, film: Callable[[], Film]
) -> Iterator[Frame]:
    """Yield the photo until the camera moves, and the film from there."""
    yield from _photos(photo, path[:still])
    try:
        made = film()
    except Stopped:
        return
    for waypoint, place in zip(path[still:], track.at[still:], strict=True):
        yield _frame(photo, waypoint, made, place)


def _frame(photo: Photo, waypoint: Waypoint, film: Film, place: int) -> Frame:
    seen = film.seen[place]
    observed_png = encode_png(seen.astype(np.uint8) * np.uint8(255))
    return photo.frame(waypoint, film.pixels[place], observed_png, observed_share=float(seen.mean()))
