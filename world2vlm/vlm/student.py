"""A student checkpoint in memory: transformers' model and processor, and answering with it."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen3VLForConditionalGeneration

from world2vlm.errors import InvalidInputError
from world2vlm.tasks import AnswerKind
from world2vlm.vlm.decoding import Decoded, Decoder, Job, control_tokens
from world2vlm.vlm.grammar import Grammars, max_answer_tokens
from world2vlm.vlm.network import Network, TorchNetwork
from world2vlm.vlm.processor import ClipProcessor

MAX_NEW_TOKENS = 48
# Answers that grow together where many are asked for at once.
_ROWS = 32
CALIBRATION_FILE = "calibration.json"
_NO_STUDENT = "the checkpoint is no Qwen3-VL with a student's processor"
# transformers' annotations do not describe these calls.
_load_processor: Callable[..., Any] = AutoProcessor.from_pretrained
_load_model: Callable[..., Any] = AutoModelForImageTextToText.from_pretrained


@dataclass(frozen=True)
class Prompt:
    """One or two views, the earlier first, a question about them, and the task whose form the answer must have."""

    images: tuple[Image.Image, ...]
    text: str
    task: str = ""


@dataclass(frozen=True)
class Inputs:
    """A prompt as the decoder reads it, see `Job`; the same for any limit of the answer's tokens.

    `question_tokens` counts those of `tokens` that are the question's.
    """

    clip: NDArray[np.uint8]
    tokens: Sequence[int]
    question_tokens: int
    task: str

    def job(self, max_new_tokens: int) -> Job:
        """The prompt with a limit.

        Raises:
            InvalidInputError: fewer tokens than the task's answer may need.
        """
        if self.task and max_new_tokens < max_answer_tokens(self.task):
            raise InvalidInputError(
                f"an answer to {self.task} takes up to {max_answer_tokens(self.task)} tokens, not {max_new_tokens}"
            )
        return Job(self.clip, self.tokens, self.task, max_new_tokens)


@dataclass(frozen=True)
class Generation:
    """An answer.

    Attributes:
        text: what the student said.
        probability: product of the probabilities of its choices among what the task's grammar allows (for yes or no:
            normalised over the two), tempered by the checkpoint's calibration; of all tokens for free text.
        prompt_tokens: tokens of the prompt, the visual ones included.
        answer_tokens: tokens of the answer, the end token included.
    """

    text: str
    probability: float
    prompt_tokens: int
    answer_tokens: int


class Student(ABC):
    """Answers prompts with a network. Not thread-safe, `inputs` excepted.

    Args:
        processor: the checkpoint's own.
        temperatures: calibration, by answer kind (`AnswerKind.value`); 1 where a kind is missing.
    """

    def __init__(self, processor: ClipProcessor, temperatures: Mapping[str, float] | None = None) -> None:
        self.processor = processor
        self.temperatures = dict(temperatures or {})

    @abstractmethod
    def network(self) -> Network:
        """What runs the weights."""

    def decoder(
        self,
        rows: int,
        max_prompt_tokens: int,
        max_new_tokens: int,
        temperatures: Mapping[str, Sequence[float]] | None = None,
    ) -> Decoder:
        """A decoder on this student's weights.

        Args:
            rows: answers at once.
            max_prompt_tokens: tokens of a question at most.
            max_new_tokens: tokens of an answer at most.
            temperatures: see `Decoder`; by default the checkpoint's calibration.
        """
        if temperatures is None:
            temperatures = {kind: [value] for kind, value in self.temperatures.items()}
        length = max_prompt_tokens + len(self._turn_ids) + max_new_tokens
        tokenizer = self.processor.tokenizer
        return Decoder(
            self.network(),
            self.grammars,
            eos=tokenizer.eos_token_id,
            banned=control_tokens(tokenizer),
            rows=rows,
            length=length,
            temperatures=temperatures,
        )

    @cached_property
    def _turn_ids(self) -> list[int]:
        return self.processor.turn_ids()

    @cached_property
    def _prefix_tokens(self) -> int:
        return len(self.processor.clip_ids())

    @cached_property
    def grammars(self) -> Grammars:
        """The tasks' grammars over this student's tokenizer."""
        return Grammars(self.processor.tokenizer)

    def inputs(self, prompt: Prompt) -> Inputs:
        """What the decoder needs to answer a prompt; needs no weights, and may be called in any thread.

        Raises:
            InvalidInputError: no or too many images, or a bad question.
        """
        return self.frame_inputs([self.processor.to_frame(image) for image in prompt.images], prompt.text, prompt.task)

    def frame_inputs(self, frames: Sequence[NDArray[np.uint8]], text: str, task: str) -> Inputs:
        """As `inputs`, of views that are the processor's frames already."""
        question = self.processor.encode_question(text)
        return Inputs(self.processor.to_clip(frames), [*question, *self._turn_ids], len(question), task)

    def generation(self, job: Job, decoded: Decoded) -> Generation:
        """A finished answer as text."""
        prompt_tokens = self._prefix_tokens + len(job.tokens)
        text: str = self.processor.tokenizer.decode(list(decoded.ids), skip_special_tokens=True)
        return Generation(text, decoded.probabilities[0], prompt_tokens, decoded.answer_tokens)

    def answer(self, prompts: Sequence[Prompt], max_new_tokens: int = MAX_NEW_TOKENS) -> list[Generation]:
        """Answer many prompts greedily, in order.

        Raises:
            InvalidInputError: see `inputs` and `Inputs.job`.
        """
        jobs = [self.inputs(prompt).job(max_new_tokens) for prompt in prompts]
        decoded = self.decode(jobs)
        return [self.generation(job, done) for job, done in zip(jobs, decoded, strict=True)]

    def answer_at(
        self, prompts: Sequence[Prompt], temperatures: Mapping[str, Sequence[float]]
    ) -> list[tuple[str, tuple[float, ...]]]:
        """Answers with their probabilities at several temperatures by answer kind, for calibration."""
        jobs = [self.inputs(prompt).job(MAX_NEW_TOKENS) for prompt in prompts]
        decoded = self.decode(jobs, temperatures)
        return [(self.generation(job, done).text, done.probabilities) for job, done in zip(jobs, decoded, strict=True)]

    def decode(self, jobs: Sequence[Job], temperatures: Mapping[str, Sequence[float]] | None = None) -> list[Decoded]:
        """The jobs' answers, in order; for `temperatures` see `decoder`."""
        if not jobs:
            return []
        longest = max(len(job.tokens) for job in jobs)
        most = max(job.max_new_tokens for job in jobs)
        decoder = self.decoder(min(_ROWS, len(jobs)), longest, most, temperatures)
        decoder.starts_per_step = decoder.capacity
        waiting = list(enumerate(jobs))[::-1]
        found: dict[int, Decoded] = {}
        while len(found) < len(jobs):
            while waiting and decoder.active < decoder.capacity:
                decoder.admit(*waiting.pop())
            for progress in decoder.step():
                if progress.decoded is not None:
                    found[progress.key] = progress.decoded
        return [found[index] for index in range(len(jobs))]


class StudentModel(Student):
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
            raise _unfit(error) from error
        _check_fit(model, {*info["missing_keys"], *info["unexpected_keys"]})
        return cls(model.to(device).eval(), processor, read_calibration(folder))

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
    try:
        processor = _load_processor(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever the broken file provokes
        raise _unfit(error) from error
    if not isinstance(processor, ClipProcessor):
        raise InvalidInputError(_NO_STUDENT)
    return processor


def _unfit(error: Exception) -> InvalidInputError:
    # The error's own text may hold local paths.
    return InvalidInputError(f"no student can be loaded from this checkpoint ({type(error).__name__})")


def _check_fit(model: object, strays: set[str]) -> None:
    if not isinstance(model, Qwen3VLForConditionalGeneration):
        raise InvalidInputError(_NO_STUDENT)
    # transformers makes up at random what the file lacks, and only warns.
    if strays:
        raise InvalidInputError(f"the checkpoint's weights do not fit its config: {', '.join(sorted(strays)[:5])}")
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise InvalidInputError("the checkpoint has weights that are not finite")
