"""Stable Virtual Camera (arXiv 2503.14489) as a world, in a process and an environment of its own.

Its terms were read in `LICENSE` of github.com/Stability-AI/stable-virtual-camera at commit fe19948, "Stability AI
Non-Commercial License Agreement", last updated on 20 February 2025.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from teacher_service.remote import Model, RemoteWorld, WorkerOptions, worker_folder
from world2vlm.settings import TeacherSettings

NAME = "svc"
_REQUIREMENTS = worker_folder(NAME) / "requirements.txt"
_REMEDY = (
    f"make one with `python3.10 -m venv DIR` and `DIR/bin/pip install -r {_REQUIREMENTS}`, and set "
    f"world_options.{NAME}.python to DIR/bin/python"
)
_TERMS = (
    "Research and non-commercial use only; neither the model nor its outputs may be used to create or improve a "
    "foundational generative AI model, and a model that was derived from its outputs falls under the same licence: "
    "https://github.com/Stability-AI/stable-virtual-camera/blob/main/LICENSE"
)
_MODEL = Model(
    name=NAME,
    description="Stable Virtual Camera 1.1: new views of a photo by diffusion, square frames",
    licence="Stability AI Non-Commercial License Agreement (2025-02-20)",
    terms=_TERMS,
    needs=("torch", "seva"),
    remedy=_REMEDY,
    weights=("weights", "vae"),
    required={"vae": "a folder with the VAE of Stable Diffusion 2.1: its repository is gone"},
)


@dataclass(frozen=True)
class SvcOptions(WorkerOptions):
    """The options of `svc`, beside those of every remote world.

    Attributes:
        weights: a folder with `modelv1.1.safetensors`, or a repository of the Hugging Face hub.
        vae: a folder with the VAE of Stable Diffusion 2.1, or one that has it in `vae`. Required: the repository that
            the package takes it from is gone.
        units_per_metre: the model's units; it was trained on scenes of no known size, so this is a matter of trial.
        side: of the square frames in pixels, a multiple of 64; the model was trained on 576.
        steps: of the sampler.
        cfg: guidance scale.
    """

    weights: str = "stabilityai/stable-virtual-camera"
    vae: str = ""
    units_per_metre: Annotated[float, Field(gt=0)] = 1.0
    side: Annotated[int, Field(gt=0, multiple_of=64)] = 576
    steps: Annotated[int, Field(gt=0)] = 50
    cfg: Annotated[float, Field(ge=1)] = 4.0


def make(settings: TeacherSettings) -> RemoteWorld:
    """Make the world from the teacher's settings.

    Raises:
        NotFoundError: its environment or its VAE is not there; says how to make it.
        InvalidInputError: bad options.
    """
    return _MODEL.make(settings, SvcOptions)
