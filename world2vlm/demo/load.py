"""A client that keeps asking the student, and notes how each question went."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.client import Student
from world2vlm.errors import World2VLMError
from world2vlm.records import TaskRecord
from world2vlm.report.asked import Asked
from world2vlm.tasks import Question


class QuestionLoad:
    """Asks the same records in turn from one thread, at a rate that can be changed, from entering until leaving.

    A question is asked only once the one before is answered: where answers take longer than the rate allows, the rate
    is what the student manages.
    """

    def __init__(self, url: str, records: Sequence[TaskRecord], bundles: Path, rate: float) -> None:
        self.rate = rate
        self._url = url
        self._questions = [
            (typed_question(record), [(bundles / path).read_bytes() for path in record.images]) for record in records
        ]
        self._asked: list[Asked] = []
        self._ended = threading.Event()
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        asking = self._exits.enter_context(ThreadPoolExecutor(1, "questions")).submit(self._run)
        # Left in reverse: tell it to end, then let whatever it died of come out.
        self._exits.callback(asking.result)
        self._exits.callback(self._ended.set)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._exits.close()

    @property
    def asked(self) -> list[Asked]:
        """What was asked so far."""
        return list(self._asked)

    def _run(self) -> None:
        # A question that fails counts as failed, though it might have gone well a moment later.
        with Student(self._url, retry=False) as student:
            for question, images in itertools.cycle(self._questions):
                started = time.monotonic()
                self._asked.append(_ask(student, question, images))
                if self._ended.wait(max(0.0, started + 1 / self.rate - time.monotonic())):
                    return


def typed_question(record: TaskRecord) -> Question:
    """The typed question that a task record asks.

    Raises:
        InvalidInputError: its `meta` does not say what the question is about.
    """
    meta = record.meta
    return Question(
        record.task_type,
        tuple(parse_actions(meta["claim"])) if "claim" in meta else (),
        meta.get("object", ""),
        Box(*meta["box"]) if "box" in meta else None,
        Box(*meta["second_box"]) if "second_box" in meta else None,
    )


def _ask(student: Student, question: Question, images: Sequence[bytes]) -> Asked:
    at, started = time.time(), time.perf_counter()
    try:
        version, error = student.ask(question, images).version, ""
    except World2VLMError as failure:
        version, error = "", f"{failure.code}: {failure}"
    return Asked(at, 1000 * (time.perf_counter() - started), version, error)
