"""A built-in student's checkpoint in memory: transformers' model and processor, and answering with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen3VLForConditionalGeneration

from world2vlm.errors import InvalidInputError
from world2vlm.fullsize import NOT_IN_ROUNDS, is_fullsize
from world2vlm.tasks import AnswerKind
from world2vlm.vlm.answering import Inputs, Student
from world2vlm.vlm.decoding import Decoder, Job, control_tokens
from world2vlm.vlm.finite import all_finite
from world2vlm.vlm.grammar import Grammars, max_answer_tokens
from world2vlm.vlm.network import Network, TorchNetwork
from world2vlm.vlm.processor import ClipProcessor

CALIBRATION_FILE = "calibration.json"
_NO_STUDENT = "the checkpoint is no Qwen3-VL with a student's processor"
# transformers' annotations do not describe these calls.
_load_processor: Callable[..., Any] = AutoProcessor.from_pretrained
_load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained


class ClipStudent(Student):
    """A built-in student: it sees one clip of one or two views.

    Args:
        processor: the checkpoint's own.
        temperatures: calibration, by answer kind (`AnswerKind.value`); 1 where a kind is missing.
    """

    def __init__(self, processor: ClipProcessor, temperatures: Mapping[str, float] | None = None) -> None:
        super().__init__(temperatures)
        self.processor = processor
        self.frame_side = processor.frame_size

    def to_frame(self, image: Image.Image) -> NDArray[np.uint8]:
        """See `Student.to_frame`."""
        return self.processor.to_frame(image)

    def frame_inputs(self, frames: Sequence[NDArray[np.uint8]], text: str, task: str) -> Inputs:
        """See `Student.frame_inputs`.

        Raises:
            InvalidInputError: no or more than two images, a bad question, or no such task.
        """
        question = self.processor.encode_question(text)
        answer = max_answer_tokens(task) if task else 0
        return Inputs(self.processor.to_clip(frames), [*question, *self._turn_ids], len(question), task, answer)

    def new_decoder(self, rows: int, length: int, temperatures: Mapping[str, Sequence[float]]) -> Decoder:
        """See `Student.new_decoder`."""
        tokenizer = self.processor.tokenizer
        return Decoder(
            self.network(),
            self.grammars,
            ends=[tokenizer.eos_token_id],
            banned=control_tokens(tokenizer),
            rows=rows,
            length=length + len(self._turn_ids),
            temperatures=temperatures,
        )

    def text(self, ids: Sequence[int]) -> str:
        """See `Student.text`."""
        text: str = self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def prompt_tokens(self, job: Job) -> int:
        """See `Student.prompt_tokens`."""
        return self._prefix_tokens + len(job.tokens)

    @cached_property
    def grammars(self) -> Grammars:
        """The tasks' grammars over this student's tokenizer."""
        return Grammars(self.processor.tokenizer)

    @cached_property
    def _turn_ids(self) -> list[int]:
        return self.processor.turn_ids()

    @cached_property
    def _prefix_tokens(self) -> int:
        return len(self.processor.clip_ids())


class StudentModel(ClipStudent):
    """A student in torch.

    Args:
        model, processor: transformers' own.
        temperatures: calibration, by answer kind (`AnswerKind.value`); 1 where a kind is missing.
    """

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        processor: ClipProcessor,
        temperatures: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(processor, temperatures)
        self.model = model

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "StudentModel":
        """Load a checkpoint folder (safetensors only, no remote code).

        Raises:
            InvalidInputError: the files are no fit student, or a weight is not finite.
        """
        processor = load_processor(folder)
        try:
            model, info = _load_model(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises whatever the broken file provokes
            raise unfit(error) from error
        if not isinstance(model, Qwen3VLForConditionalGeneration):
            raise InvalidInputError(_NO_STUDENT)
        check_weights(model, {*info["missing_keys"], *info["unexpected_keys"]})
        placed: Any = model
        return cls(placed.to(device).eval(), processor, read_calibration(folder))

    def save(self, folder: Path) -> None:
        """Write model and processor as safetensors and JSON; publish them through `world2vlm.checkpoints`."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if self.temperatures:
            write_calibration(folder, self.temperatures)

    def network(self) -> Network:
        """See `Student.network`."""
        return TorchNetwork(self.model, self.processor)


def write_calibration(folder: Path, temperatures: Mapping[str, float]) -> None:
    """Store temperatures by answer kind with a checkpoint, before it is published."""
    (folder / CALIBRATION_FILE).write_text(json.dumps(dict(temperatures), sort_keys=True) + "\n", encoding="utf-8")


def read_calibration(folder: Path) -> dict[str, float]:
    """A checkpoint's temperatures by answer kind; empty where it has none.

    Raises:
        InvalidInputError: they are broken.
    """
    path = folder / CALIBRATION_FILE
    if not path.exists():
        return {}
    kinds = {kind.value for kind in AnswerKind}
    try:
        temperatures = {str(kind): float(value) for kind, value in json.loads(path.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"the checkpoint's {CALIBRATION_FILE} is broken: {error}") from error
    if not kinds >= set(temperatures) or not all(np.isfinite(v) and v > 0 for v in temperatures.values()):
        raise InvalidInputError(f"the checkpoint's {CALIBRATION_FILE} needs temperatures above 0 by answer kind")
    return temperatures


def load_processor(folder: Path) -> ClipProcessor:
    """A checkpoint's processor.

    Raises:
        InvalidInputError: it has none, or not a student's.
    """
    if is_fullsize(folder):
        raise InvalidInputError(NOT_IN_ROUNDS)
    try:
        processor = _load_processor(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever the broken file provokes
        raise unfit(error) from error
    if not isinstance(processor, ClipProcessor):
        raise InvalidInputError(_NO_STUDENT)
    return processor


def unfit(error: Exception) -> InvalidInputError:
    """What to raise where transformers cannot load a checkpoint."""
    # The error's own text may hold local paths.
    return InvalidInputError(f"no student can be loaded from this checkpoint ({type(error).__name__})")


def check_weights(model: nn.Module, strays: set[str]) -> None:
    """Check what was loaded.

    Args:
        model: as it is used.
        strays: names of weights that it lacks, or that it has no place for.

    Raises:
        InvalidInputError: there are strays, or a weight is not finite.
    """
    # transformers makes up at random what the file lacks, and only warns.
    if strays:
        raise InvalidInputError(f"the checkpoint's weights do not fit its config: {', '.join(sorted(strays)[:5])}")
    if not all_finite(model.parameters()):
        raise InvalidInputError("the checkpoint has weights that are not finite")
