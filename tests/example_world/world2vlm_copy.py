from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ConfigDict

from teacher_service.worlds.base import ImagineSpec, Photo, World, source_digest
from teacher_service.worlds.registry import read_options
from world2vlm.bundles import Frame
from world2vlm.errors import InvalidInputError
from world2vlm.images import encode_png
from world2vlm.settings import TeacherSettings
from world2vlm.worlds import WorldInfo


@dataclass(frozen=True)
class CopyOptions:
    __pydantic_config__ = ConfigDict(extra="forbid")

    dim: float = 1.0


class CopyWorld:
    """Shows the photo wherever the camera goes: what every other world has to beat."""

    def __init__(self, options: CopyOptions) -> None:
        self._dim = options.dim
        self.info = WorldInfo(
            name="copy",
            description="The photo itself, whatever the camera does",
            metric=False,
            generative=True,
            takes_scenes=False,
            takes_photos=True,
            licence="Apache-2.0; frames keep the photo's own terms",
            outputs_may_train=True,
            digest=source_digest([Path(__file__)]),
        )

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        if not isinstance(spec.anchor, Photo):
            raise InvalidInputError("the world copy takes photos, not scenes")
        nothing = encode_png(np.zeros(spec.anchor.pixels.shape[:2], dtype=np.uint8))
        for index, at in enumerate(spec.path):
            if spec.is_cancelled():
                return
            pixels = (spec.anchor.pixels * (self._dim if index else 1)).astype(np.uint8)
            yield spec.anchor.frame(at, pixels, nothing if index else b"")


def make(settings: TeacherSettings) -> World:
    return CopyWorld(read_options(settings, "copy", CopyOptions))
