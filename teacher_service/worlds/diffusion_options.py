"""What every world that runs a diffusers pipeline can be told, needs, and may be used for. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar, Literal

from pydantic import ConfigDict

from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.worlds import WorldInfo

_PACKAGES = ("accelerate", "diffusers", "safetensors", "torch", "transformers")


@dataclass(frozen=True)
class VideoOptions:
    """What every world of this kind can be told.

    Attributes:
        model: folder of a diffusers pipeline, or a repository on the Hugging Face hub.
        revision: of the repository; empty = its main branch.
        local_files_only: never download; the repository must be in the hub's cache.
        device: torch's; `auto`: a GPU where there is one.
        dtype: of the weights; `auto`: bfloat16 on a GPU and float32 elsewhere.
        offload: what rests in main memory: nothing, the components that are not at work, or all layers but one.
        compile: compile the transformer's blocks with `torch.compile`: the first video then takes minutes.
        width, height: of the frames in pixels.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 = none, at half the cost.
        prompt: what the pictures show. The default says nothing of any one picture.
        negative_prompt: what they do not.
        max_frames: frames of a video, those between the waypoints included.
        step_m, step_deg: how far the camera moves or turns at most from one frame to the next. Larger steps of a path
            are divided; only the frames that were asked for are returned.
        terms_checked: you have read the terms of a model of another name, and they let you train on what comes of it
            and sell that; until then the world says that neither is allowed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: str
    revision: str = ""
    local_files_only: bool = True
    device: str = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    compile: bool = False
    width: int = 1280
    height: int = 704
    steps: int = 50
    guidance: float = 5.0
    prompt: str = "A photograph of a place where nothing moves but the camera."
    negative_prompt: str = ""
    max_frames: int = 81
    step_m: float = 0.1
    step_deg: float = 2.5
    terms_checked: bool = False

    def __post_init__(self) -> None:
        least = min(self.width, self.height, self.steps, self.max_frames - 1)
        if least < 1 or not min(self.step_m, self.step_deg) > 0:
            raise ValueError("sizes, steps and max_frames - 1 must be at least 1, step_m and step_deg over 0")


def check_installed(world: str, *more: str) -> None:
    """Check that what worlds of this kind import can be imported, and `more` packages.

    Raises:
        NotFoundError: a package is missing; says how to install it.
    """
    missing = [name for name in (*_PACKAGES, *more) if find_spec(name) is None]
    if missing:
        raise NotFoundError(
            f"the world {world} needs {', '.join(missing)}, not installed here: pip install 'world2vlm[teacher,model]'"
        )


def check_size(world: str, options: VideoOptions, unit: int) -> None:
    """Check that frames have a size that the model can make.

    Raises:
        InvalidInputError: it is no multiple of `unit` pixels.
    """
    if options.width % unit or options.height % unit:
        raise InvalidInputError(f"world_options.{world}: width and height must be multiples of {unit}")


def under_terms(info: WorldInfo, unread: Sequence[str], terms_checked: bool) -> WorldInfo:
    """Return what a world says about itself with the terms of the models that it really runs.

    Args:
        info: with the terms of the models whose terms were read when the world was written.
        unread: the models that the settings name in their stead.
        terms_checked: the setting of that name.
    """
    if not unread:
        return info
    if terms_checked:
        return replace(info, outputs_may_train=True, outputs_may_be_sold=True, terms="")
    terms = (
        f"what {' and '.join(unread)} may be used for was not checked: read the terms, then set terms_checked in "
        f"world_options.{info.name}"
    )
    return replace(info, outputs_may_train=False, outputs_may_be_sold=False, terms=terms)
