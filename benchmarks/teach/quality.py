"""The geometric world against rendered rooms, where what it has to guess is known."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.serve.findings import Claim, Part
from benchmarks.teach.transitions import RIGHT, Transition, transitions
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from world2vlm.bundles import Frame
from world2vlm.cameras import integrate, pixel_rays
from world2vlm.errors import GateRejectedError
from world2vlm.images import decode_image, decode_map
from world2vlm.telemetry import progress

MEAN, SMOOTH, PAINTED, ESTIMATED = "mean fill", "smooth fill", "painted", "estimated depth, painted"
COPY = "copy of the photo"
# Depths that differ by less than this share are those of one surface.
_SAME_DEPTH = 0.03


@dataclass
class Side:
    """What one way of imagining reaches, a figure for each transition that it does not reject.

    Attributes:
        whole, covisible, holes: dB of PSNR on all pixels, on those that both cameras see, and on those that the photo
            does not show (transitions without holes have none).
        nearest: whether the right view is the nearest of the five.
        rejected: transitions that a gate rejected.
    """

    whole: list[float] = field(default_factory=list)
    covisible: list[float] = field(default_factory=list)
    holes: list[float] = field(default_factory=list)
    nearest: list[bool] = field(default_factory=list)
    rejected: int = 0

    def add(
        self, transition: Transition, pixels: NDArray[np.uint8], seen: NDArray[np.bool_], shared: NDArray[np.bool_]
    ) -> None:
        """Note a frame, what of it the photo shows, and which pixels both cameras see."""
        truth = transition.views[RIGHT]
        self.whole.append(psnr(pixels, truth, np.ones_like(seen)))
        for figures, mask in ((self.covisible, shared), (self.holes, ~seen)):
            if mask.any():
                figures.append(psnr(pixels, truth, mask))
        errors = {name: np.square(pixels.astype(float) - view).mean() for name, view in transition.views.items()}
        self.nearest.append(min(errors, key=lambda name: errors[name]) == RIGHT)

    def figures(self) -> dict[str, float]:
        """Means over transitions."""
        means = {name: getattr(self, name) for name in ("whole", "covisible", "holes", "nearest")}
        return {name: float(np.mean(each)) for name, each in means.items() if each} | {"rejected": self.rejected}


def compare_fills(count: int, side: int) -> Part:
    """Imagine transitions with true and with estimated depth, and fill the holes in three ways."""
    plain = GeometricWorld(options=GeometricOptions(depth_model="none", inpaint_model="none"))
    painting = GeometricWorld()
    sides = {name: Side() for name in (COPY, MEAN, SMOOTH, PAINTED, ESTIMATED)}
    with progress("transitions", count) as advance:
        for each in transitions(count, side):
            blind = replace(each, photo=replace(each.photo, depth=None))
            _with_mean(sides, each, lambda each=each: _imagine(plain, each))  # type: ignore[misc]
            _note(sides[PAINTED], each, lambda each=each: _imagine(painting, each))  # type: ignore[misc]
            _note(sides[ESTIMATED], each, lambda blind=blind: _imagine(painting, blind))  # type: ignore[misc]
            advance(1)
    figures = {name: each.figures() for name, each in sides.items()}
    gain = figures[PAINTED]["holes"] - figures[MEAN]["holes"]
    claims = (
        Claim("dB in the holes over mean fill, true depth", gain, 2.0, is_least=True),
        Claim("dB on co-visible pixels, true depth", figures[PAINTED]["covisible"], 30.0, is_least=True),
        Claim("nearest of five poses, true depth", figures[PAINTED]["nearest"], 0.95, is_least=True),
        Claim("nearest of five poses, estimated depth", figures[ESTIMATED]["nearest"], 0.85, is_least=True),
    )
    return Part({"transitions": count, "pixels a side": side, **figures}, claims)


def psnr(pixels: NDArray[np.uint8], truth: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """PSNR in dB over some pixels."""
    error = np.square(pixels[mask].astype(float) - truth[mask]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def _imagine(world: GeometricWorld, transition: Transition) -> Frame:
    """The last frame."""
    path = from_actions(transition.actions, key_frames_only=True)
    *_, last = world.imagine(ImagineSpec(transition.photo, path))
    return last


def _decoded(frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    return np.asarray(decode_image(frame.png)), decode_map(frame.observed_png) > 0


def _note(side: Side, transition: Transition, imagine: Callable[[], Frame]) -> None:
    try:
        pixels, seen = _decoded(imagine())
    except GateRejectedError:
        side.rejected += 1
        return
    side.add(transition, pixels, seen, seen & _shared(transition))


def _with_mean(sides: dict[str, Side], transition: Transition, imagine: Callable[[], Frame]) -> None:
    """Note the smooth fill, the mean fill that it implies, and the photo itself."""
    try:
        pixels, seen = _decoded(imagine())
    except GateRejectedError:
        for name in (COPY, MEAN, SMOOTH):
            sides[name].rejected += 1
        return
    shared = seen & _shared(transition)
    mean = np.where(seen[..., None], pixels, np.rint(pixels[seen].mean(0))).astype(np.uint8)
    for name, each in ((COPY, transition.photo.pixels), (MEAN, mean), (SMOOTH, pixels)):
        sides[name].add(transition, each, seen, shared)


def _shared(transition: Transition) -> NDArray[np.bool_]:
    """Which pixels of the right view the photo's camera saw: nothing stood nearer to it in that direction."""
    photo, (height, width) = transition.photo, transition.depth.shape
    assert photo.depth is not None
    pose = integrate(transition.actions)[-1]
    points = transition.depth[..., None] * pixel_rays(photo.intrinsics, width, height)
    places = (points @ pose[:3, :3].T + pose[:3, 3]) @ photo.intrinsics.T
    column, row = (np.floor(places[..., axis] / np.maximum(places[..., 2], 1e-6)) for axis in (0, 1))
    inside = (places[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = photo.depth[np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int)]
    return np.asarray(inside & (np.abs(there - places[..., 2]) < _SAME_DEPTH * places[..., 2]))
