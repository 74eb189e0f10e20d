"""SANA-WM (NVIDIA): a video of where a camera goes, from one photo, by diffusers' `SanaWMPipeline`.

Stage 1 only: the LTX-2 refiner of stage 2 makes frames sharper, and is no part of what is learned from them. The model
was trained at 1280 x 704 on small steps of the camera, so the photo is cut to that and large steps are divided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from teacher_service.worlds.base import Photo
from teacher_service.worlds.diffusion import VideoWorld
from teacher_service.worlds.diffusion_options import VideoOptions, check_installed, check_size, under_terms
from teacher_service.worlds.framing import Track
from teacher_service.worlds.registry import read_options
from teacher_service.worlds.takes import Audience, Film
from world2vlm.errors import InvalidInputError
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo

if TYPE_CHECKING:
    from teacher_service.worlds.sana_sampling import SanaSampler

NAME = "sana_wm"
_TERMS = (
    "The transformer is Apache-2.0. The text encoder is under the Gemma terms of use "
    "(https://ai.google.dev/gemma/terms), the decoder under the LTX-2 community licence "
    "(https://github.com/Lightricks/LTX-2): who earns 10 million US dollars a year or more needs a paid licence, no "
    "product or model may compete with Lightricks', and frames must be called machine-made where the law asks for it."
)


@dataclass(frozen=True)
class SanaOptions(VideoOptions):
    """Options of `sana_wm`; see `VideoOptions`.

    Attributes:
        max_batch: trajectories of one photo that are made at once, of those that wait and are equally long. Over 1, a
            frame may differ a little with what else was asked for when it was made: batches round differently.
    """

    model: str = "Efficient-Large-Model/SANA-WM_bidirectional-diffusers"
    steps: int = 60
    max_frames: int = 161
    max_batch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_batch < 1:
            raise ValueError("max_batch must be at least 1")


class SanaWorld(VideoWorld):
    """SANA-WM behind the port.

    Args:
        info: what the world says about itself.
        options: as the settings give them.
        stride: frames of one latent frame.
        sampler: the model.
    """

    def __init__(self, info: WorldInfo, options: SanaOptions, stride: int, sampler: "SanaSampler") -> None:
        super().__init__(info, options, stride, options.max_batch)
        self.sampler = sampler

    def _films(self, photo: Photo, tracks: Sequence[Track], seeds: Sequence[int], audience: Audience) -> list[Film]:
        poses = np.stack([track.poses for track in tracks])
        prompts = (self._prompt(photo), self._options.negative_prompt)
        videos = self.sampler.sample(photo, prompts, poses, seeds, audience)
        # No pixel of them is the photo's, even where it shows what is there.
        return [Film(video, np.zeros(video.shape[:3], dtype=np.bool_)) for video in videos]


def make(settings: TeacherSettings) -> SanaWorld:
    """Make the world from the teacher's settings.

    Raises:
        NotFoundError: a package or the weights are not there; says how to install them.
        InvalidInputError: an option is wrong, or the weights are of another model.
        OverloadedError: the device has too little free memory.
    """
    options = read_options(settings, NAME, SanaOptions)
    check_installed(NAME)
    from diffusers import SanaWMPipeline

    from teacher_service.worlds import sana_sampling
    from teacher_service.worlds.diffusion_loading import load

    loaded = load(NAME, SanaWMPipeline, options, (Path(__file__), Path(sana_sampling.__file__)))
    if loaded.device.type == "cpu" and loaded.pipe.transformer.dtype.itemsize < 4:
        raise InvalidInputError(f"world_options.{NAME}: the model needs float32 on a CPU")
    check_size(NAME, options, loaded.pipe.vae_spatial_compression_ratio)
    info = WorldInfo(
        name=NAME,
        description="SANA-WM, a video diffusion model that follows a camera path from one photo",
        metric=True,
        generative=True,
        takes_scenes=False,
        takes_photos=True,
        licence="Apache-2.0, Gemma terms of use and LTX-2 community licence; frames keep the photo's own terms",
        outputs_may_train=True,
        outputs_may_be_sold=False,
        terms=_TERMS,
        digest=loaded.digest,
        lanes=1,
    )
    sampler = sana_sampling.SanaSampler(loaded, options.steps, options.guidance)
    unread = [] if options.model == SanaOptions.model else [options.model]
    info = under_terms(info, unread, options.terms_checked)
    return SanaWorld(info, options, loaded.pipe.vae_temporal_compression_ratio, sampler)
