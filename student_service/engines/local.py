"""The engine in this process: the student's decoder, on transformers' forward passes or whatever else runs them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from student_service import metrics
from student_service.engines.base import Query, Reply, Update
from world2vlm.errors import PreconditionError, World2VLMError
from world2vlm.vlm import Prompt, StudentModel
from world2vlm.vlm.decoding import Decoder, Job, Progress
from world2vlm.vlm.student import Inputs, Student


def limit_threads(threads: int) -> None:
    """Let torch use `threads` threads for one operation, in the whole process."""
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Sizes:
    """What an engine is made for: queries at once, tokens of a question and of an answer at most."""

    batch: int = 8
    question_tokens: int = 512
    new_tokens: int = 64


@dataclass(frozen=True)
class _Prepared:
    student: Student
    inputs: Inputs


@dataclass
class _Answer:
    job: Job
    ids: list[int] = field(default_factory=list)
    said: str = ""


class LocalEngine:
    """One student in memory, behind the engine port (`student_service.engines.base.Engine`)."""

    def __init__(self, student: Student, sizes: Sizes = Sizes()) -> None:
        self.capacity = sizes.batch
        self._student: Student | None = student
        self._decoder: Decoder | None = student.decoder(sizes.batch, sizes.question_tokens, sizes.new_tokens)
        self._answers: dict[int, _Answer] = {}

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", sizes: Sizes = Sizes()) -> "LocalEngine":
        """Load a verified checkpoint folder onto a torch device, with transformers.

        Raises:
            PreconditionError: the checkpoint is unfit.
        """
        try:
            return cls(StudentModel.load(folder, device), sizes)
        except World2VLMError as error:
            raise PreconditionError(f"the checkpoint is unfit: {error}") from error

    def prepare(self, query: Query) -> Query:
        """See `Engine.prepare`."""
        return replace(query, prepared=self._prepare(query))

    def admit(self, key: int, query: Query, max_new_tokens: int) -> None:
        """See `Engine.admit`."""
        prepared = query.prepared
        if not isinstance(prepared, _Prepared) or prepared.student is not self._loaded():
            prepared = self._prepare(query)
        job = prepared.inputs.job(max_new_tokens)
        self._decoding().admit(key, job)
        self._answers[key] = _Answer(job)

    def drop(self, key: int) -> None:
        """See `Engine.drop`."""
        self._decoding().drop(key)
        self._answers.pop(key, None)

    def step(self) -> list[Update]:
        """See `Engine.step`."""
        decoder = self._decoding()
        hits, misses = decoder.prefixes.hits, decoder.prefixes.misses
        updates = [self._update(progress) for progress in decoder.step()]
        metrics.looked_up_features(decoder.prefixes.hits - hits, decoder.prefixes.misses - misses)
        return updates

    def count_tokens(self, text: str) -> int:
        """See `Engine.count_tokens`."""
        return self._loaded().count_tokens(text)

    def close(self) -> None:
        """See `Engine.close`."""
        self._student = self._decoder = None
        self._answers.clear()

    def _prepare(self, query: Query) -> _Prepared:
        student = self._loaded()
        return _Prepared(student, student.inputs(Prompt(query.images, query.text, query.task)))

    def _update(self, progress: Progress) -> Update:
        answer = self._answers[progress.key]
        if progress.decoded is not None:
            del self._answers[progress.key]
            done = self._loaded().generation(answer.job, progress.decoded)
            reply = Reply(done.text, done.probability, done.prompt_tokens, done.answer_tokens)
            return Update(progress.key, done.text[len(answer.said) :], reply)
        answer.ids += progress.ids
        text = self._loaded().processor.tokenizer.decode(answer.ids, skip_special_tokens=True)
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
