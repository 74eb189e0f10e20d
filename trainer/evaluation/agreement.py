"""How well candidate answers agree with true ones, many against many, and which single answer agrees best."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from world2vlm.boxes import parse_box
from world2vlm.scoring import score
from world2vlm.tasks import AnswerKind, get_task

Floats = NDArray[np.float64]

# Most different answers that are tried, and that they are tried on. Boxes are compared all at once, texts one by one.
_MOST_BOXES = (256, 1024)
_MOST_TEXTS = (64, 64)


def agreement(task: str, truths: Sequence[str], candidates: Sequence[str]) -> Floats:
    """Score of each candidate as a response to each truth: float64 (truths, candidates).

    The same as `world2vlm.scoring.score(...)["overall"]`.
    """
    if get_task(task).kind is AnswerKind.BOX:
        return _ious(corners(truths), corners(candidates))
    scores = [[score(task, truth, candidate)["overall"] for candidate in candidates] for truth in truths]
    return np.array(scores, dtype=np.float64).reshape(len(truths), len(candidates))


def best_constant(task: str, answers: Sequence[str], rng: random.Random) -> str:
    """The one of `answers` that, given to all of them, scores best on average.

    Where there are many different ones, the most frequent answers are tried for texts, a sample for boxes, and both on
    a sample of the answers.
    """
    if len(set(answers)) == 1:
        return answers[0]
    boxes = get_task(task).kind is AnswerKind.BOX
    most_candidates, most_truths = _MOST_BOXES if boxes else _MOST_TEXTS
    candidates = _sample(sorted(set(answers)), most_candidates, rng) if boxes else _frequent(answers, most_candidates)
    truths = Counter(answers if len(set(answers)) <= most_truths else _sample(answers, most_truths, rng))
    weights = np.array(list(truths.values()), dtype=np.float64)
    return candidates[int(np.argmax(weights @ agreement(task, list(truths), candidates)))]


def corners(boxes: Sequence[str]) -> Floats:
    """Corners x1, y1, x2, y2 of boxes given as text: float64 (N, 4), in thousandths."""
    return np.array([parse_box(box).corners for box in boxes], dtype=np.float64).reshape(-1, 4)


def _ious(a: Floats, b: Floats) -> Floats:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    overlap: Floats = intersection / (areas[0][:, None] + areas[1][None, :] - intersection)
    return overlap


def _frequent(answers: Sequence[str], most: int) -> list[str]:
    # Ties go by the text, so that the order of the records plays no part.
    ranked = sorted(Counter(answers).items(), key=lambda item: (-item[1], item[0]))
    return [answer for answer, _ in ranked[:most]]


def _sample(items: Sequence[str], most: int, rng: random.Random) -> list[str]:
    return rng.sample(items, min(most, len(items)))
