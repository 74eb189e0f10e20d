"""The geometric world: a photo and its depth, seen from elsewhere; what the photo does not show is painted in."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from teacher_service.depth import DepthEstimator, make_depth
from teacher_service.gates import check_clearance, check_observed
from teacher_service.inpainting import Inpainter, make_inpainter, paint_holes
from teacher_service.paths import Waypoint
from teacher_service.worlds.base import ImagineSpec, Photo, source_digest
from teacher_service.worlds.diffusion_options import under_terms
from teacher_service.worlds.fill import fill_holes
from teacher_service.worlds.registry import read_options
from teacher_service.worlds.surfaces import Surfaces
from teacher_service.worlds.warp import Relief
from world2vlm.bundles import Frame
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.images import encode_png
from world2vlm.lenses import check_shape
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

_MAX_PIXELS = 1 << 20
_SOURCES = (
    "worlds/geometric.py",
    "worlds/surfaces.py",
    "worlds/warp.py",
    "worlds/fill.py",
    "depth/*.py",
    "inpainting/*.py",
)


@dataclass(frozen=True)
class GeometricOptions:
    """`[teacher.world_options.geometric]`.

    Attributes:
        depth_model: for photos without depth: `tiny` (in this package), `none` (such photos can only turn), or a folder
            or hub name of a metric depth model of transformers.
        inpaint_model: paints what the photo does not show: `tiny` (in this package), `none` (a smooth fill, ten times
            as fast), or a folder or hub name of an inpainting pipeline of diffusers.
        inpaint_prompt: what a pipeline is told to paint.
        inpaint_side: pixels of the longer side that a pipeline works at; 0 = 512.
        inpaint_steps: of a pipeline's diffusion; 0 = 20.
        terms_checked: you have read the terms of the models named above, and they let you train on what comes of them
            and sell it; until then the world says that neither is allowed.
        device: torch device of named models; `auto` is a GPU where there is one.
        photo_cache: photos whose surfaces are kept in memory.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    depth_model: str = "tiny"
    inpaint_model: str = "tiny"
    inpaint_prompt: str = ""
    inpaint_side: int = 0
    inpaint_steps: int = 0
    terms_checked: bool = False
    device: str = "auto"
    photo_cache: Annotated[int, Field(ge=1)] = 4

    @property
    def named(self) -> tuple[str, ...]:
        """The models that are not in this package."""
        return tuple(model for model in (self.depth_model, self.inpaint_model) if model not in ("tiny", "none"))


class GeometricWorld:
    """Warps photos by their depth.

    Args:
        min_observed_share: the unobserved gate's share of a frame that the photo must back; 0 turns it off.
        min_clearance_m: the collision gate's distance, straight ahead on the way; 0 turns it off.
        options: the models; those with names are loaded here, the tiny ones when they are first needed.

    Raises:
        NotFoundError: no model of a name that the options give.
        InvalidInputError: a model that is of no use here.
    """

    def __init__(
        self,
        min_observed_share: float = 0.3,
        min_clearance_m: float = 0.1,
        options: GeometricOptions | None = None,
    ) -> None:
        options = options or GeometricOptions()
        self._min_observed_share = min_observed_share
        self._min_clearance_m = min_clearance_m
        depth = make_depth(options.depth_model, options.device)
        self._surfaces = Surfaces("geometric", "depth_model", depth, options.photo_cache)
        self._inpainter = make_inpainter(
            options.inpaint_model, options.inpaint_prompt, options.inpaint_side, options.inpaint_steps, options.device
        )
        info = WorldInfo(
            name="geometric",
            description="A photo as a surface by its depth, seen from elsewhere; what it does not show is painted in",
            metric=True,
            generative=True,
            takes_scenes=False,
            takes_photos=True,
            licence=_licence(options),
            outputs_may_train=True,
            digest=_digest(depth, self._inpainter),
        )
        self.info = under_terms(info, options.named, options.terms_checked)

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the frames of a path from a photo's camera; see `World.imagine`.

        A frame's scores say what share of it the photo shows (`observed_share`), and whether its metres are estimated
        (`depth_estimated`, 1 or 0): see `depth.DepthEstimator` for what those are worth.

        Raises:
            InvalidInputError: the photo is over 1,048,576 pixels or no pinhole camera's, or there is neither depth nor
                a depth model and the path is not turns alone.
            GateRejectedError: `collision`: the path leads through what the photo shows; `unobserved`: it leads away.
        """
        photo = spec.anchor
        if not isinstance(photo, Photo):
            raise InvalidInputError("the geometric world takes photos, not scenes")
        poses = [waypoint.c2w for waypoint in spec.path]
        _check_photo(photo)
        self._surfaces.check(photo, poses)
        if spec.is_cancelled():
            return
        relief, estimated = self._surfaces.of(photo, poses)
        self._check_way(relief, spec.path)
        for index, waypoint in enumerate(spec.path):
            frame = None if spec.is_cancelled() else self._frame(index, waypoint, photo, relief, estimated, spec)
            if frame is None:
                return
            yield frame

    def _check_way(self, relief: Relief, path: tuple[Waypoint, ...]) -> None:
        """Reject a path that runs into the surface: what lies behind it was never seen."""
        for before, after in pairwise(path):
            way = after.c2w[:3, 3] - before.c2w[:3, 3]
            if length := float(np.linalg.norm(way)):
                ahead = relief.distance(before.c2w[:3, 3], way / length)
                check_clearance(np.array([ahead - length]), self._min_clearance_m)

    def _frame(
        self, index: int, waypoint: Waypoint, photo: Photo, relief: Relief, estimated: bool, spec: ImagineSpec
    ) -> Frame | None:
        pixels: NDArray[np.uint8] | None = photo.pixels
        observed, observed_png = 1.0, b""
        if not np.array_equal(waypoint.c2w, np.eye(4)):
            warped = relief.view(waypoint.c2w)
            observed = float(warped.seen.mean())
            check_observed(observed, self._min_observed_share, index)
            pixels = fill_holes(warped.rgb, warped.depth, warped.seen)
            if self._inpainter is not None:
                pixels = paint_holes(self._inpainter, pixels, warped.seen, spec.seed, spec.is_cancelled)
            observed_png = encode_png(warped.seen.astype(np.uint8) * 255)
        if pixels is None:
            return None
        return photo.frame(waypoint, pixels, observed_png, observed_share=observed, depth_estimated=float(estimated))


def make(settings: TeacherSettings) -> GeometricWorld:
    """Make the world from the teacher's settings.

    Raises:
        NotFoundError: torch or diffusers is missing, or a model that the options name.
        InvalidInputError: bad options, or a model that is of no use here.
    """
    options = read_options(settings, "geometric", GeometricOptions)
    if {options.depth_model, options.inpaint_model} != {"none"} and not (find_spec("torch") and find_spec("diffusers")):
        raise NotFoundError("the geometric world's models need torch and diffusers: pip install 'world2vlm[teacher]'")
    return GeometricWorld(settings.min_observed_share, settings.min_clearance_m, options)


def _check_photo(photo: Photo) -> None:
    height, width = photo.pixels.shape[:2]
    check_shape(width, height)
    if height * width > _MAX_PIXELS:
        raise InvalidInputError(f"the photo has {width} x {height} pixels; scale it down to at most {_MAX_PIXELS}")


def _licence(options: GeometricOptions) -> str:
    terms = f" and those of {' and '.join(options.named)}" if options.named else ""
    return f"Apache-2.0; frames keep the photo's own terms{terms}"


def _digest(depth: DepthEstimator | None, inpainter: Inpainter | None) -> str:
    package = Path(__file__).parents[1]
    sources = source_digest(path for pattern in _SOURCES for path in package.glob(pattern))
    models = [model.digest if model else "none" for model in (depth, inpainter)]
    return hashlib.sha256(" ".join([sources, *models]).encode()).hexdigest()
