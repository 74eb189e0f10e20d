"""Which detector to use, as settings say it."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from pydantic import ConfigDict

from teacher_service.objects.detector import Detector
from world2vlm.errors import InvalidInputError, NotFoundError


@dataclass(frozen=True)
class DetectorOptions:
    """A detector of `transformers`.

    Attributes:
        detector: folder or hub name of its model: D-FINE, RT-DETR v2, Grounding DINO; empty = none.
        vocabulary: what to look for, in words, for a model of an open vocabulary (Grounding DINO); a model with labels
            of its own takes none.
        device: torch device; `auto` is a GPU where there is one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    detector: str = ""
    vocabulary: tuple[str, ...] = ()
    device: str = "auto"


def make_detector(options: DetectorOptions) -> Detector | None:
    """Return the detector that the options name; None where they name none.

    Raises:
        NotFoundError: no such model, or torch or transformers is not installed.
        InvalidInputError: a model that detects nothing, weights that are not whole or no safetensors, or a vocabulary
            that does not fit.
    """
    if not options.detector:
        if options.vocabulary:
            raise InvalidInputError("a vocabulary needs a detector: name a Grounding DINO model, or leave both out")
        return None
    if not (find_spec("torch") and find_spec("transformers")):
        raise NotFoundError("detectors need torch and transformers: pip install 'world2vlm[teacher]'")
    from teacher_service.objects.pretrained import load_detector

    return load_detector(options.detector, options.vocabulary, options.device)
