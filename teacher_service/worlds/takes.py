"""Videos that are made at once, and who waits for them. Imports no torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.framing import Track


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
        """Say how many steps are done to those who still wait, and go on; samplers call it after each.

        Raises:
            Stopped: nobody waits any more.
        """
        for spec in self.specs:
            if not spec.is_cancelled():
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


class Take:
    """Videos of one length that are made at once, when a frame of one is first wanted.

    Args:
        make: makes one for every path and its track.
    """

    def __init__(self, make: Callable[[Sequence[ImagineSpec], Sequence[Track]], list[Film]]) -> None:
        self._make = make
        self._films: Future[list[Film]] = Future()
        self.specs: list[ImagineSpec] = []
        self.tracks: list[Track] = []

    def add(self, spec: ImagineSpec, track: Track) -> Callable[[], Film]:
        """Have one more made; what is returned gives it, or raises why there is none."""
        self.specs.append(spec)
        self.tracks.append(track)
        return partial(self._film, len(self.specs) - 1)

    def _film(self, place: int) -> Film:
        if not self._films.done():
            try:
                self._films.set_result(self._make(self.specs, self.tracks))
            except Exception as error:
                self._films.set_exception(error)
        return self._films.result()[place]
