"""HY-WorldPlay (Tencent, HunyuanVideo 1.5) as a world, in a process and an environment of its own.

Its terms were read in `License.txt` of github.com/Tencent-Hunyuan/HY-WorldPlay at commit da2d0c2, "Tencent HY-WorldPlay
Community License Agreement", released on 17 December 2025: sections 1.l, 4, 5.b and 5.c.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from teacher_service.remote import Model, RemoteWorld, WorkerOptions, worker_folder
from world2vlm.settings import TeacherSettings

NAME = "hy_worldplay"
_REQUIREMENTS = worker_folder(NAME) / "requirements.txt"
_REMEDY = (
    "clone https://github.com/Tencent-Hunyuan/HY-WorldPlay, make an environment with `python3.10 -m venv DIR` and "
    f"`DIR/bin/pip install -r HY-WorldPlay/requirements.txt -r {_REQUIREMENTS}`, and set "
    f"world_options.{NAME}.python to DIR/bin/python and .repository to the clone"
)
_TERMS = (
    "Neither the model nor its outputs may be used to improve any other AI model; both may be used nowhere in the "
    "European Union, the United Kingdom and South Korea; whoever had more than a million monthly users at its release "
    "needs a licence of their own: https://github.com/Tencent-Hunyuan/HY-WorldPlay/blob/main/License.txt"
)
_MODEL = Model(
    name=NAME,
    description="HY-WorldPlay: a video model that is steered in steps of 3 degrees or 0.08 units",
    licence="Tencent HY-WorldPlay Community License Agreement (2025-12-17)",
    terms=_TERMS,
    needs=("torch", "hyvideo"),
    remedy=_REMEDY,
    weights=("weights", "action_weights"),
    required={"action_weights": "the safetensors file of the autoregressive action model"},
    excluded_regions=("EU", "GB", "KR"),
)


@dataclass(frozen=True)
class HyWorldPlayOptions(WorkerOptions):
    """The options of `hy_worldplay`, beside those of every remote world.

    Attributes:
        weights: a folder with HunyuanVideo 1.5, or its repository on the Hugging Face hub.
        action_weights: the safetensors file of the action model, autoregressive. Required.
        units_per_metre: the model's units; one latent moves 0.08 of them, which is walking speed if they are metres.
        width: of the frames in pixels, a multiple of 16.
        height: likewise.
        steps: of the sampler; 4 for the distilled action model, with `few_step`.
        few_step: the action model is the distilled one: without guidance.
        offload: keep parts of the model in main memory while they are idle.
        prompt: what the model is told; the same for every photo, so it must hold for every photo.
        max_latents: of one path; a latent is 3 degrees or 0.08 units.
    """

    weights: str = "tencent/HunyuanVideo-1.5"
    action_weights: str = ""
    units_per_metre: Annotated[float, Field(gt=0)] = 1.0
    width: Annotated[int, Field(gt=0, multiple_of=16)] = 832
    height: Annotated[int, Field(gt=0, multiple_of=16)] = 480
    steps: Annotated[int, Field(gt=0)] = 50
    few_step: bool = False
    offload: bool = True
    prompt: str = "A still scene, seen by a camera that moves through it."
    max_latents: Annotated[int, Field(ge=4)] = 64


def make(settings: TeacherSettings) -> RemoteWorld:
    """Make the world from the teacher's settings.

    Raises:
        NotFoundError: its environment or its weights are not there; says how to make them.
        InvalidInputError: bad options.
    """
    return _MODEL.make(settings, HyWorldPlayOptions)
