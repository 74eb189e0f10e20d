"""The engine in this process: the student's decoder, on transformers' forward passes or whatever else runs them."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from student_service.engines.base import DEFAULT_SIZES, LookedUp, Query, Reply, Sizes, Update
from student_service.frames import Frames
from world2vlm.errors import InvalidInputError, PreconditionError, World2VLMError
from world2vlm.vlm.answering import Student
from world2vlm.vlm.decoding import Decoder, Job, Progress
from world2vlm.vlm.loading import load_student


def limit_threads(threads: int) -> None:
    """Let torch use `threads` threads for one operation of the calling thread."""
    torch.set_num_threads(threads)


@dataclass
class _Answer:
    job: Job
    streams: bool
    ids: list[int] = field(default_factory=list)
    said: str = ""


class LocalEngine:
    """One student in memory, behind the engine port (`student_service.engines.base.Engine`).

    Args:
        student: a loaded one.
        sizes: what the engine is made for.
        looked_up: where the lookups in its caches are counted.
    """

    def __init__(self, student: Student, sizes: Sizes = DEFAULT_SIZES, looked_up: LookedUp | None = None) -> None:
        self.capacity = sizes.batch
        self._sizes = sizes
        self._looked_up: LookedUp = Counter() if looked_up is None else looked_up
        self._frames = Frames(
            student.to_frame, sizes.image_bytes, sizes.image_pixels, student.frame_bytes, student.frame_side
        )
        self._student: Student | None = student
        self._decoder: Decoder | None = student.decoder(sizes.batch, sizes.question_tokens, sizes.new_tokens)
        self._answers: dict[int, _Answer] = {}

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", sizes: Sizes = DEFAULT_SIZES, looked_up: LookedUp | None = None
    ) -> "LocalEngine":
        """Load a verified checkpoint folder onto a torch device, with transformers.

        Raises:
            PreconditionError: the checkpoint is unfit.
        """
        try:
            return cls(load_student(folder, device), sizes, looked_up)
        except World2VLMError as error:
            raise PreconditionError(f"the checkpoint is unfit: {error}") from error

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        """See `Engine.admit`."""
        frames = [self._read(image) for image in query.images]
        inputs = self._loaded().frame_inputs(frames, query.text, query.task)
        if inputs.question_tokens > self._sizes.question_tokens:
            raise InvalidInputError(f"the question has more than {self._sizes.question_tokens} tokens")
        job = inputs.job(max_new_tokens)
        self._decoding().admit(key, job)
        self._answers[key] = _Answer(job, streams)

    def drop(self, key: int) -> None:
        """See `Engine.drop`."""
        self._decoding().drop(key)
        self._answers.pop(key, None)

    def step(self) -> list[Update]:
        """See `Engine.step`."""
        decoder = self._decoding()
        hits, misses = decoder.prefixes.hits, decoder.prefixes.misses
        updates = [self._update(progress) for progress in decoder.step() if self._is_news(progress)]
        self._looked_up["features", True] += decoder.prefixes.hits - hits
        self._looked_up["features", False] += decoder.prefixes.misses - misses
        return updates

    def wake(self) -> None:
        """See `Engine.wake`: no step waits here."""

    def serve(self) -> None:
        """See `Engine.serve`: in this process there is nothing to it."""

    def close(self) -> None:
        """See `Engine.close`."""
        self._student = self._decoder = None
        self._answers.clear()

    def _read(self, image: bytes) -> Any:
        frame, is_known = self._frames.read(image)
        self._looked_up["pictures", is_known] += 1
        return frame

    def _is_news(self, progress: Progress) -> bool:
        return progress.decoded is not None or self._answers[progress.key].streams

    def _update(self, progress: Progress) -> Update:
        answer = self._answers[progress.key]
        if progress.decoded is not None:
            del self._answers[progress.key]
            done = self._loaded().generation(answer.job, progress.decoded)
            reply = Reply(done.text, done.probability, done.prompt_tokens, done.answer_tokens)
            return Update(progress.key, done.text[len(answer.said) :], reply)
        answer.ids += progress.ids
        text = self._loaded().text(answer.ids)
        # A character of several bytes is held back until it is whole.
        whole = text.rstrip("\N{REPLACEMENT CHARACTER}")
        added, answer.said = whole[len(answer.said) :], whole
        return Update(progress.key, added)

    def _loaded(self) -> Student:
        if self._student is None:
            raise RuntimeError("the engine is closed")
        return self._student

    def _decoding(self) -> Decoder:
        if self._decoder is None:
            raise RuntimeError("the engine is closed")
        return self._decoder
