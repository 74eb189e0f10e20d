"""Groups of answers: the student draws several to each question, and each gets its reward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.grpo.config import Reward
from world2vlm import rewards, scoring
from world2vlm.records import TaskRecord
from world2vlm.vlm import StudentModel
from world2vlm.vlm.grammar import max_answer_tokens

Views = Callable[[TaskRecord], Sequence[NDArray[np.uint8]]]
"""A record's frames, each uint8 (S, S, 3)."""

_REWARDS = {"strict": scoring.score, "world2vlm": rewards.reward}


@dataclass(frozen=True)
class Group:
    """One question and G answers to it.

    Attributes:
        record: the question.
        clip: uint8 (2, S, S, 3).
        prompt: ids after the clip: the question and the beginning of the answer's turn.
        answers: G times the ids of an answer, the end token left out.
        truth: ids of the true answer.
        rewards: float64 (G,).
    """

    record: TaskRecord
    clip: NDArray[np.uint8]
    prompt: Sequence[int]
    answers: Sequence[tuple[int, ...]]
    truth: Sequence[int]
    rewards: NDArray[np.float64]

    @property
    def is_telling(self) -> bool:
        """Whether some answers are better than others; nothing can be learned otherwise."""
        return bool(np.ptp(self.rewards) > 0)


class Rollouts:
    """Draws groups from a student as it is at the time.

    Args:
        student: the one that learns.
        views: reads a record's frames.
        size: answers in a group.
        reward: which.
    """

    def __init__(self, student: StudentModel, views: Views, size: int, reward: Reward) -> None:
        self._student, self._views, self._size = student, views, size
        self._reward = _REWARDS[reward]

    def draw(self, records: Sequence[TaskRecord], seeds: Sequence[int]) -> list[Group]:
        """A group for each record, drawn with the record's own seed."""
        student, size = self._student, self._size
        inputs = [student.frame_inputs(self._views(record), record.question, record.task_type) for record in records]
        jobs = [
            replace(given.job(max_answer_tokens(record.task_type)), seed=seed * size + number)
            for given, record, seed in zip(inputs, records, seeds, strict=True)
            for number in range(size)
        ]
        answers = [decoded.ids for decoded in student.decode(jobs)]
        return [
            self._group(record, given.clip, given.tokens, answers[start : start + size])
            for record, given, start in zip(records, inputs, range(0, len(answers), size), strict=True)
        ]

    def _group(
        self, record: TaskRecord, clip: NDArray[np.uint8], prompt: Sequence[int], answers: Sequence[tuple[int, ...]]
    ) -> Group:
        processor = self._student.processor
        texts = [processor.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in answers]
        found = [self._reward(record.task_type, record.assistant, text)["overall"] for text in texts]
        truth = processor.encode_question(record.assistant)
        return Group(record, clip, prompt, answers, truth, np.array(found, dtype=np.float64))
