"""Detectors by `transformers`: D-FINE, RT-DETR v2 and others with labels of their own, Grounding DINO for any words."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoImageProcessor,
    AutoModelForObjectDetection,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)

from teacher_service.hub import digest, fetch, load_model
from teacher_service.objects.detector import Detection, Detector
from teacher_service.objects.words import as_word, as_words, which_word
from world2vlm.bundles import Frame
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image

# Below any sensible filter: what counts is decided later, and the same way for every detector.
_LEAST_SCORE = 0.05
_LEAST_TEXT_SCORE = 0.25


def load_detector(name: str, vocabulary: Sequence[str], device: str) -> Detector:
    """Load a detector's weights and its image processor.

    Args:
        name: folder or hub name.
        vocabulary: what to look for, for a model of an open vocabulary; empty for one with labels of its own.
        device: torch device, or `auto`.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: it detects nothing, its weights are not whole or no safetensors, or the vocabulary is bad.
    """
    folder, words = fetch(name), as_words(vocabulary)
    made_of = hashlib.sha256(f"{digest(folder)} {'|'.join(words)}".encode()).hexdigest()
    try:
        if words:
            model = load_model(AutoModelForZeroShotObjectDetection, folder, name, device)
            return _OpenDetector(_processor(AutoProcessor, folder), model, made_of, words)
        model = load_model(AutoModelForObjectDetection, folder, name, device)
        return _ClosedDetector(_processor(AutoImageProcessor, folder), model, made_of)
    except (OSError, ValueError) as error:
        remedy = "does it have labels of its own? Then give no vocabulary" if words else "does it need a vocabulary?"
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"the detector {name!r} can't be loaded; {remedy}: {reason}") from error


class _Pretrained:
    """A model with its processor; one frame at a time, as the model owns its device."""

    def __init__(self, processor: Any, model: Any, digest: str) -> None:
        self.digest = digest
        self._processor = processor
        self._model = model
        self._lock = threading.Lock()

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        """Return what the model sees; see `Detector.detect`."""
        if not frame.png:
            raise InvalidInputError("a detector needs the frame's pixels, but the frame was read without them")
        pixels = np.asarray(decode_image(frame.png))
        with self._lock, torch.inference_mode():
            found, labels = self._find(pixels)
        height, width = pixels.shape[:2]
        rows = zip(labels, found["scores"].tolist(), found["boxes"].tolist(), strict=True)
        every = (_detection(label, score, box, width, height) for label, score, box in rows)
        return tuple(each for each in every if each is not None)

    def _find(self, pixels: NDArray[np.uint8]) -> tuple[Any, Sequence[str]]:
        """Return the processor's scores and boxes in pixels, and the label of each, empty where it has none."""
        raise NotImplementedError


class _ClosedDetector(_Pretrained):
    """A model with labels of its own."""

    def _find(self, pixels: NDArray[np.uint8]) -> tuple[Any, Sequence[str]]:
        inputs = self._processor(images=pixels, return_tensors="pt").to(self._model.device)
        outputs, sizes = self._model(**inputs), [pixels.shape[:2]]
        (found,) = self._processor.post_process_object_detection(outputs, threshold=_LEAST_SCORE, target_sizes=sizes)
        names = self._model.config.id2label
        return found, [as_word(names[label]) for label in found["labels"].tolist()]


class _OpenDetector(_Pretrained):
    """A model that looks for words."""

    def __init__(self, processor: Any, model: Any, digest: str, words: Sequence[str]) -> None:
        super().__init__(processor, model, digest)
        self._words = words

    def _find(self, pixels: NDArray[np.uint8]) -> tuple[Any, Sequence[str]]:
        inputs = self._processor(images=pixels, text=[list(self._words)], return_tensors="pt").to(self._model.device)
        (found,) = self._processor.post_process_grounded_object_detection(
            self._model(**inputs),
            inputs.input_ids,
            threshold=_LEAST_SCORE,
            text_threshold=_LEAST_TEXT_SCORE,
            target_sizes=[pixels.shape[:2]],
        )
        return found, [which_word(phrase, self._words) for phrase in found["text_labels"]]


def _processor(kind: Any, folder: Path) -> Any:
    # The other backend needs torchvision.
    return kind.from_pretrained(folder, backend="pil", trust_remote_code=False, local_files_only=True)


def _detection(label: str, score: float, box: Sequence[float], width: int, height: int) -> Detection | None:
    """A detection within the frame; None where it means nothing, or nothing of its box is in the frame."""
    x1, x2 = (min(max(box[side], 0.0), float(width)) for side in (0, 2))
    y1, y2 = (min(max(box[side], 0.0), float(height)) for side in (1, 3))
    # Said this way round, boxes of NaN are none either.
    return Detection(label, score, (x1, y1, x2, y2)) if label and x1 < x2 and y1 < y2 else None
