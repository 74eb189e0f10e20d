"""Answering with a student of whatever model: prompts become jobs of a decoder, what it decoded becomes text."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.decoding import Decoded, Decoder, Job
from world2vlm.vlm.network import Clip, Network

MAX_NEW_TOKENS = 48
# Answers that grow together where many are asked for at once.
_ROWS = 32


@dataclass(frozen=True)
class Prompt:
    """One or two views, the earlier first, a question about them, and the task whose form the answer must have."""

    images: tuple[Image.Image, ...]
    text: str
    task: str = ""


@dataclass(frozen=True)
class Inputs:
    """A prompt as the decoder reads it, see `Job`; the same for any limit of the answer's tokens.

    `question_tokens` counts those of `tokens` that are the question's, `answer_tokens` those that an answer to the task
    may take, its end included; 0 for free text.
    """

    clip: Clip
    tokens: Sequence[int]
    question_tokens: int
    task: str
    answer_tokens: int

    def job(self, max_new_tokens: int) -> Job:
        """The prompt with a limit.

        Raises:
            InvalidInputError: fewer tokens than the task's answer may need.
        """
        if max_new_tokens < self.answer_tokens:
            raise InvalidInputError(
                f"an answer to {self.task} takes up to {self.answer_tokens} tokens, not {max_new_tokens}"
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
    """Answers prompts. Not thread-safe, `inputs` excepted.

    Args:
        temperatures: calibration, by answer kind (`AnswerKind.value`); 1 where a kind is missing.

    Attributes:
        frame_bytes: of pictures in the form that it reads that are worth keeping.
        frame_side: of pictures in that form, in pixels; 0 where it depends on the picture.
    """

    frame_bytes = 16 << 20
    frame_side = 0

    def __init__(self, temperatures: Mapping[str, float] | None = None) -> None:
        self.temperatures = dict(temperatures or {})

    @abstractmethod
    def network(self) -> Network:
        """What runs the weights."""

    @abstractmethod
    def to_frame(self, image: Image.Image) -> Any:
        """A picture as the student reads it; has `nbytes`, and is not to be written to.

        Raises:
            InvalidInputError: the student takes none of such a shape.
        """

    @abstractmethod
    def frame_inputs(self, frames: Sequence[Any], text: str, task: str) -> Inputs:
        """As `inputs`, of pictures that `to_frame` has made."""

    @abstractmethod
    def new_decoder(self, rows: int, length: int, temperatures: Mapping[str, Sequence[float]]) -> Decoder:
        """As `decoder`; `length` counts the tokens of a question and its answer, not those of the turns around them."""

    @abstractmethod
    def text(self, ids: Sequence[int]) -> str:
        """What tokens of an answer say."""

    @abstractmethod
    def prompt_tokens(self, job: Job) -> int:
        """Tokens of a prompt, the visual ones included."""

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
        return self.new_decoder(rows, max_prompt_tokens + max_new_tokens, temperatures)

    def inputs(self, prompt: Prompt) -> Inputs:
        """What the decoder needs to answer a prompt; needs no weights, and may be called in any thread.

        Raises:
            InvalidInputError: no or too many images, or one that the student does not take, or a bad question.
        """
        return self.frame_inputs([self.to_frame(image) for image in prompt.images], prompt.text, prompt.task)

    def generation(self, job: Job, decoded: Decoded) -> Generation:
        """A finished answer as text."""
        tokens = self.prompt_tokens(job)
        return Generation(self.text(decoded.ids), decoded.probabilities[0], tokens, decoded.answer_tokens)

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
