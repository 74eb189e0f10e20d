"""Geometry first, then Wan-VACE (Jiang et al. 2025, arXiv 2503.07598): the warped photo is the control video.

What the photo shows from each camera is warped by its depth (`worlds.warp`), and only the holes are left to the model,
by diffusers' `WanVACEPipeline`. So the camera goes where it was told to, whatever the model knows of cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from teacher_service.depth import DepthEstimator, make_depth
from teacher_service.gates.trajectory import check_observed
from teacher_service.paths import Waypoint
from teacher_service.worlds.base import Photo
from teacher_service.worlds.diffusion import VideoWorld
from teacher_service.worlds.diffusion_options import VideoOptions, check_installed, check_size, under_terms
from teacher_service.worlds.framing import Track
from teacher_service.worlds.registry import read_options
from teacher_service.worlds.surfaces import Surfaces
from teacher_service.worlds.takes import Audience, Film
from teacher_service.worlds.warp import Relief
from world2vlm.cameras import Floats
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

if TYPE_CHECKING:
    from teacher_service.worlds.wan_sampling import VaceSampler

NAME = "wan_vace_warp"
# The control video's grey where nothing is known, as VACE was trained.
_GREY = 127
# Photos whose surfaces are kept.
_REMEMBERED = 4


@dataclass(frozen=True)
class VaceOptions(VideoOptions):
    """Options of `wan_vace_warp`; see `VideoOptions`.

    Attributes:
        paste: put what the photo shows back over what the model made of it.
        depth: what estimates the depth of a photo that comes without; see `teacher_service.depth.make_depth`.
    """

    model: str = "Wan-AI/Wan2.1-VACE-1.3B-diffusers"
    width: int = 832
    height: int = 480
    steps: int = 30
    step_m: float = 0.2
    step_deg: float = 5.0
    paste: bool = True
    depth: str = "tiny"


class VaceWarpWorld(VideoWorld):
    """Wan-VACE behind the port.

    Args:
        info: what the world says about itself.
        options: as the settings give them.
        stride: frames of one latent frame.
        sampler: the model.
        min_observed_share: the unobserved gate's share of a frame that the photo must back; 0 turns it off.
        depth: estimates the depth of a photo that comes without; None = such a photo can only turn.
    """

    def __init__(
        self,
        info: WorldInfo,
        options: VaceOptions,
        stride: int,
        sampler: "VaceSampler",
        min_observed_share: float = 0.3,
        depth: DepthEstimator | None = None,
    ) -> None:
        super().__init__(info, options, stride)
        self._paste = options.paste
        self.sampler = sampler
        self._min_observed_share = min_observed_share
        self._surfaces = Surfaces(NAME, "depth", depth, _REMEMBERED)

    def _check(self, photo: Photo, path: Sequence[Waypoint]) -> None:
        self._surfaces.check(photo, [waypoint.c2w for waypoint in path])

    def _films(self, photo: Photo, tracks: Sequence[Track], seeds: Sequence[int], audience: Audience) -> list[Film]:
        relief, _estimated = self._surfaces.of(photo, [pose for track in tracks for pose in track.poses])
        prompts = (self._prompt(photo), self._options.negative_prompt)
        films = []
        for track, seed in zip(tracks, seeds, strict=True):
            known = self._warp(photo, relief, track, audience)
            made = self.sampler.sample(known.pixels, ~known.seen, prompts, seed, audience)
            pixels = np.where(known.seen[..., None], known.pixels, made) if self._paste else made
            films.append(Film(pixels, known.seen))
        return films

    def _warp(self, photo: Photo, relief: Relief, track: Track, audience: Audience) -> Film:
        """Return the control video, grey in its holes; the gate looks at the frames that were asked for."""
        views = []
        for pose in track.poses:
            audience.check()
            views.append(_view(photo, relief, pose))
        for place, frame in enumerate(track.at):
            check_observed(float(views[frame][1].mean()), self._min_observed_share, place)
        seen = np.stack([seen for _rgb, seen in views])
        rgb = np.stack([rgb for rgb, _seen in views])
        return Film(np.where(seen[..., None], rgb, np.uint8(_GREY)), seen)


def make(settings: TeacherSettings) -> VaceWarpWorld:
    """Make the world from the teacher's settings.

    Raises:
        NotFoundError: a package or the weights are not there; says how to install them.
        InvalidInputError: an option is wrong, or the weights are of another model.
        OverloadedError: the device has too little free memory.
    """
    options = read_options(settings, NAME, VaceOptions)
    check_installed(NAME, "ftfy")
    from diffusers import WanVACEPipeline

    from teacher_service.worlds import surfaces, wan_sampling, warp
    from teacher_service.worlds.diffusion_loading import load

    sources = tuple(Path(name) for name in (__file__, wan_sampling.__file__, surfaces.__file__, warp.__file__))
    # Wan's decoder loses detail in bfloat16; its authors keep it in float32.
    depth = make_depth(options.depth, options.device)
    acting = {"depth": depth.digest if depth else ""}
    loaded = load(NAME, WanVACEPipeline, options, sources, float32=("vae",), acting=acting)
    check_size(NAME, options, loaded.pipe.vae_scale_factor_spatial * loaded.pipe.transformer.config.patch_size[1])
    info = WorldInfo(
        name=NAME,
        description="A photo warped by its metric depth, its holes filled by the video diffusion model Wan-VACE",
        metric=True,
        generative=True,
        takes_scenes=False,
        takes_photos=True,
        licence="Apache-2.0; frames keep the photo's own terms",
        outputs_may_train=True,
        digest=loaded.digest,
        lanes=1,
    )
    sampler = wan_sampling.VaceSampler(loaded, options.steps, options.guidance)
    stride = loaded.pipe.vae_scale_factor_temporal
    unread = [] if options.model == VaceOptions.model else [options.model]
    unread += [] if options.depth in ("tiny", "none") else [options.depth]
    info = under_terms(info, unread, options.terms_checked)
    return VaceWarpWorld(info, options, stride, sampler, settings.min_observed_share, depth)


def _view(photo: Photo, relief: Relief, pose: Floats) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    if np.array_equal(pose, np.eye(4)):
        return photo.pixels, np.ones(photo.pixels.shape[:2], dtype=np.bool_)
    warped = relief.view(pose)
    return warped.rgb, warped.seen
