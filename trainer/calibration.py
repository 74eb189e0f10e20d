"""Calibration: temperatures that make a student's probabilities mean what they say (Guo et al., arXiv 1706.04599).

A probability is calibrated when, of the answers given with 0.8, eight in ten are right. One temperature for each kind
of answer is fitted on questions about scenes that are neither trained on nor tested on. Boxes have none: their
probability is that of four exact numbers, and nobody needs those to the last thousandth.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.prompts import read_prompt
from world2vlm.records import TaskRecord
from world2vlm.scoring import score
from world2vlm.tasks import TASKS, AnswerKind
from world2vlm.vlm.answering import Student

KINDS = (AnswerKind.BINARY, AnswerKind.MOTION, AnswerKind.SEQUENCE)
# Far below 1, too: a motion is right within a tolerance, so it is right more often than its exact number is likely.
GRID: tuple[float, ...] = tuple(float(t) for t in np.round(np.geomspace(0.1, 5.0, 57), 3))
_BINS = 10
_BATCH = 64

Floats = NDArray[np.float64]


def fit_temperatures(student: Student, records: Sequence[TaskRecord], bundles: Path) -> dict[str, float]:
    """The temperature of each kind of answer with the least negative log-likelihood of being right.

    Args:
        student: answers with its own weights; its present temperatures don't matter.
        records: calibration questions; image paths are relative to `bundles`.
        bundles: where the bundles are.

    Returns:
        By `AnswerKind.value`; kinds that no record asks for are missing.
    """
    grids = {kind.value: GRID for kind in KINDS}
    return {
        kind: GRID[int(np.argmin([negative_log_likelihood(column, right) for column in probabilities.T]))]
        for kind, (probabilities, right) in _answers(student, records, bundles, grids).items()
    }


def measure_calibration(student: Student, records: Sequence[TaskRecord], bundles: Path) -> dict[str, dict[str, Any]]:
    """How well the student's probabilities hold, by kind of answer, before (temperature 1) and after calibration.

    Returns:
        `n`, `temperature`, and for `before` and `after`: `ece` and `bins` (see `reliability`).
    """
    temperatures = {kind.value: student.temperatures.get(kind.value, 1.0) for kind in KINDS}
    found = _answers(student, records, bundles, {kind: (1.0, value) for kind, value in temperatures.items()})
    return {
        kind: {
            "n": len(right),
            "temperature": temperatures[kind],
            "before": reliability(probabilities[:, 0], right),
            "after": reliability(probabilities[:, 1], right),
        }
        for kind, (probabilities, right) in found.items()
    }


def reliability(probabilities: Floats, right: NDArray[np.bool_]) -> dict[str, Any]:
    """The expected calibration error over ten bins of equally many answers, and the bins.

    Returns:
        `ece`, 0 to 1, and `bins`: for each its mean probability, share of right answers and count.
    """
    bins = []
    for part in np.array_split(np.argsort(probabilities, kind="stable"), min(_BINS, len(right))):
        bins.append(
            {"probability": float(probabilities[part].mean()), "right": float(right[part].mean()), "n": len(part)}
        )
    ece = sum(entry["n"] * abs(entry["probability"] - entry["right"]) for entry in bins) / max(1, len(right))
    return {"ece": ece, "bins": bins}


def negative_log_likelihood(probabilities: Floats, right: NDArray[np.bool_]) -> float:
    """Mean -log of the probability given to what turned out: right, or not."""
    clipped = probabilities.clip(1e-6, 1 - 1e-6)
    return float(-np.log(np.where(right, clipped, 1 - clipped)).mean())


def _answers(
    student: Student,
    records: Sequence[TaskRecord],
    bundles: Path,
    temperatures: Mapping[str, Sequence[float]],
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """By kind: probabilities (N, T) at the temperatures, and whether the answers are right (N,)."""
    rows: dict[str, list[Floats]] = defaultdict(list)
    right: dict[str, list[bool]] = defaultdict(list)
    asked = [record for record in records if TASKS[record.task_type].kind.value in temperatures]
    for start in range(0, len(asked), _BATCH):
        part = asked[start : start + _BATCH]
        prompts = [read_prompt(bundles, record.images, record.question, record.task_type) for record in part]
        answers = student.answer_at(prompts, temperatures)
        for record, (text, probabilities) in zip(part, answers, strict=True):
            kind = TASKS[record.task_type].kind.value
            rows[kind].append(np.array(probabilities))
            right[kind].append(score(record.task_type, record.assistant, text)["overall"] == 1.0)
    return {kind: (np.stack(rows[kind]), np.array(right[kind])) for kind in rows}
