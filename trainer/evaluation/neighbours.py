"""The strongest reader of text alone: it knows how boxes moved in the training questions that read alike."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.agreement import best_constant, corners
from world2vlm.boxes import SCALE, Box
from world2vlm.records import TaskRecord
from world2vlm.tasks import AnswerKind, get_task

_NEIGHBOURS = 5


class Neighbours:
    """Answers a question about boxes from the nearest training questions of the same task and action text.

    For D1 the first box is moved as the neighbours' boxes moved on average, since a turn moves every box alike; for
    the others it is the answer that agrees best with the neighbours' answers.
    """

    def __init__(self, train: Sequence[TaskRecord]) -> None:
        groups: Mapping[str | None, list[TaskRecord]] = defaultdict(list)
        for record in train:
            groups[_claim(record)].append(record)
        self._groups = {
            claim: (records, np.stack([_boxes(record) for record in records])) for claim, records in groups.items()
        }

    def answer(self, record: TaskRecord, rng: random.Random) -> str | None:
        """The neighbours' answer; None where no training question has this action text."""
        if _claim(record) not in self._groups:
            return None
        records, boxes = self._groups[_claim(record)]
        order = np.argsort(np.abs(boxes - _boxes(record)).sum(axis=1), kind="stable")[:_NEIGHBOURS]
        answers = [records[index].assistant for index in order]
        if get_task(record.task_type).kind is AnswerKind.BOX:
            return _move(_boxes(record), (corners(answers) - boxes[order]).mean(axis=0))
        return best_constant(record.task_type, answers, rng)


def _claim(record: TaskRecord) -> str | None:
    claim = record.meta.get("claim")
    return None if claim is None else str(claim)


def _boxes(record: TaskRecord) -> NDArray[np.float64]:
    """The question's boxes one after the other: float64 (4,) or (8,), in thousandths."""
    return np.array([*record.meta["box"], *record.meta.get("second_box", [])], dtype=np.float64)


def _move(box: NDArray[np.float64], offset: NDArray[np.float64]) -> str:
    x1, y1, x2, y2 = np.clip(np.rint(box + offset), 0, SCALE).astype(int).tolist()
    # A box that left the image or turned inside out is kept as a sliver at the edge: it must still be a box.
    x1, y1 = min(x1, SCALE - 1), min(y1, SCALE - 1)
    return str(Box(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
