"""Answering a request: check it, queue it, type its answers."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from student_service import metrics
from student_service.batching import Batcher, Outcome
from student_service.engines.base import Query
from student_service.slots import Serving, Slot
from world2vlm import telemetry, tracing
from world2vlm.errors import InvalidInputError, OverloadedError
from world2vlm.settings import StudentSettings
from world2vlm.tasks import Answer, Question, get_task, parse_answer

# No tokenizer in use packs more into a token, on average over a question: longer texts aren't even tokenised.
_CHARACTERS_PER_TOKEN = 64


@dataclass(frozen=True)
class Answered:
    """An outcome and what its text says in its task's form; None for free text and for what does not parse."""

    outcome: Outcome
    answer: Answer | None


class Reasoner:
    """Answers questions on whatever checkpoint serves. Its methods belong to one event loop.

    Attributes:
        active: questions that wait or are answered.
    """

    def __init__(self, serving: Serving, batcher: Batcher, settings: StudentSettings) -> None:
        self._serving = serving
        self._batcher = batcher
        self._settings = settings
        self.active = 0
        self._usual_s = 0.1  # that an answer takes, lately

    async def answer(
        self,
        images: Sequence[bytes],
        question: Question | str,
        max_new_tokens: int = 0,
        on_text: Callable[[str], None] | None = None,
        on_version: Callable[[int], None] | None = None,
    ) -> Answered:
        """Answer one question.

        Args:
            images: encoded pictures, oldest first.
            question: a task's, or free text.
            max_new_tokens: where to stop at the latest; 0 = as late as the settings allow.
            on_text: called in the event loop's thread with each piece of the text.
            on_version: called first, with the version that will answer; what it raises ends the request.

        Raises:
            InvalidInputError: too many or too few images, a bad one, or a limit is exceeded.
            OverloadedError: as many requests as allowed are under way.
            UnavailableError: no checkpoint serves yet.
        """
        [answered] = await self._answer(images, [question], max_new_tokens, on_text, on_version)
        return answered

    async def answer_many(
        self, images: Sequence[bytes], questions: Sequence[Question | str], max_new_tokens: int = 0
    ) -> list[Answered]:
        """Answer several questions about the same pictures, all on one version; in order.

        Raises:
            World2VLMError: as `answer`, for any of the questions or their number; none is answered then.
        """
        self.check_questions(len(questions))
        return await self._answer(images, questions, max_new_tokens)

    def check_questions(self, count: int) -> None:
        """Check how many questions a request has, before they are read; `answer_many` checks again.

        Raises:
            InvalidInputError: none, or more than may ever be under way.
        """
        if not 1 <= count <= self._most:
            raise InvalidInputError(f"a request has 1 to {self._most} questions, not {count}")

    def check_room(self) -> None:
        """Refuse a request before it is read; `answer` checks again.

        Raises:
            OverloadedError: as many requests as allowed are under way.
        """
        try:
            self._check_room()
        except OverloadedError:
            metrics.refused()
            raise

    @property
    def _most(self) -> int:
        """Questions under way at most: one batch is answered while `max_queue` others wait."""
        return self._settings.max_batch + self._settings.max_queue

    def _check_room(self, questions: int = 1) -> None:
        if self.active + questions > self._most:
            batches = self.active / self._settings.max_batch
            raise OverloadedError(
                f"{self.active} requests are under way already; try again later", batches * self._usual_s
            )

    @contextmanager
    def _admit(self, questions: int) -> Iterator[None]:
        self._check_room(questions)
        self.active += questions
        try:
            yield
        finally:
            self.active -= questions

    async def _answer(
        self,
        images: Sequence[bytes],
        questions: Sequence[Question | str],
        max_new_tokens: int,
        on_text: Callable[[str], None] | None = None,
        on_version: Callable[[int], None] | None = None,
    ) -> list[Answered]:
        with ExitStack() as asked:
            counted = [asked.enter_context(metrics.request(_task(question))) for question in questions]
            asked.enter_context(self._admit(len(questions)))
            slot = asked.enter_context(self._serving.lease())
            for each in counted:
                each.version = str(slot.version)
            telemetry.answered_by(slot.version)
            if on_version is not None:
                on_version(slot.version)
            for question in questions:
                self._check(len(images), question, max_new_tokens)
            queries = [Query(tuple(images), _text(question), _task(question)) for question in questions]
            outcomes = await self._decode(slot, queries, max_new_tokens or self._settings.max_new_tokens, on_text)
        return [
            Answered(outcome, _typed(question, outcome.reply.text))
            for question, outcome in zip(questions, outcomes, strict=True)
        ]

    async def _decode(
        self, slot: Slot, queries: Sequence[Query], max_new_tokens: int, on_text: Callable[[str], None] | None
    ) -> list[Outcome]:
        tell = partial(_call_in, asyncio.get_running_loop(), on_text) if on_text else None
        queued_ns = time.time_ns()
        futures = [asyncio.wrap_future(self._batcher.submit(slot, each, max_new_tokens, tell)) for each in queries]
        try:
            outcomes = await asyncio.gather(*futures)
        finally:
            for future in futures:  # the others need not go on where one fails
                future.cancel()
        for outcome in outcomes:
            self._usual_s += 0.05 * (outcome.generate_ms / 1000 - self._usual_s)
            _observe(outcome, queued_ns)
        return outcomes

    def _check(self, images: int, question: Question | str, max_new_tokens: int) -> None:
        if isinstance(question, Question) and images != get_task(question.task).images:
            raise InvalidInputError(f"task {question.task} takes {get_task(question.task).images} images, not {images}")
        most, most_tokens = self._settings.max_images, self._settings.max_new_tokens
        if not 1 <= images <= most:
            raise InvalidInputError(f"a question takes 1 to {most} images, not {images}")
        if max_new_tokens > most_tokens:
            raise InvalidInputError(f"an answer has at most {most_tokens} tokens, not {max_new_tokens}")
        if len(_text(question)) > _CHARACTERS_PER_TOKEN * self._settings.max_question_tokens:
            raise InvalidInputError(f"the question has more than {self._settings.max_question_tokens} tokens")


def _observe(outcome: Outcome, queued_ns: int) -> None:
    """Tell metrics and the current trace how long the parts of an answer took."""
    metrics.answered(outcome.reply.answer_tokens, outcome.generate_ms, outcome.first_text_ms)
    started_ns = queued_ns + int(1e6 * outcome.queue_ms)
    ended_ns = started_ns + int(1e6 * outcome.generate_ms)
    tracing.record("student.queue", queued_ns, started_ns)
    tracing.record(
        "student.engine", started_ns, ended_ns, version=outcome.version, answer_tokens=outcome.reply.answer_tokens
    )


def _call_in(loop: asyncio.AbstractEventLoop, on_text: Callable[[str], None], text: str) -> None:
    # The loop may be closed already: whoever listened is gone.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(on_text, text)


def _task(question: Question | str) -> str:
    return question.task if isinstance(question, Question) else ""


def _text(question: Question | str) -> str:
    return question.text if isinstance(question, Question) else question


def _typed(question: Question | str, text: str) -> Answer | None:
    if isinstance(question, str):
        return None
    try:
        return parse_answer(question.task, text)
    except InvalidInputError:
        return None
