"""Ask a student all test questions and score what it says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.scoring import score

Answerer = Callable[[Sequence[TaskRecord]], list[str]]
"""Takes a batch of records, whose answers it must not look at, and returns one response each."""


@dataclass(frozen=True)
class Scored:
    """One record with the student's response and the parts of its score (`world2vlm.scoring.score`)."""

    record: TaskRecord
    response: str
    parts: Mapping[str, float]

    @property
    def overall(self) -> float:
        """The score, 0 to 1."""
        return self.parts["overall"]

    @property
    def scene(self) -> str:
        """The scene the record comes from: records of one scene are not independent."""
        return str(self.record.meta["scene"])


def evaluate(
    answer: Answerer,
    records: Sequence[TaskRecord],
    batch: int = 32,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
    """Score a student on records.

    Args:
        answer: the student.
        records: what to ask, in this order.
        batch: questions per call.
        on_progress: told (done, total) after each batch.

    Raises:
        InvalidInputError: the student gave more or fewer responses than it was asked questions.
    """
    scored: list[Scored] = []
    for start in range(0, len(records), batch):
        part = records[start : start + batch]
        responses = answer(part)
        if len(responses) != len(part):
            raise InvalidInputError(f"the student gave {len(responses)} responses to {len(part)} questions")
        scored.extend(_score(record, response) for record, response in zip(part, responses, strict=True))
        if on_progress is not None:
            on_progress(len(scored), len(records))
    return scored


def _score(record: TaskRecord, response: str) -> Scored:
    return Scored(record, response, score(record.task_type, record.assistant, response))
