"""The score of one answered question."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.suites.asking import Answered, Reply
from trainer.suites.items import Kind, SuiteItem
from trainer.suites.parsing import normalise, parse_choice, parse_number

Floats = NDArray[np.float64]

THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
"""VSI-Bench's: written out, since a range with a float step may miss its end."""

# 0.1 <= 1 - 0.9 is false in floating point.
_SLACK = 1e-9


@dataclass(frozen=True)
class ItemScore:
    """How a question was answered, each 0 to 1.

    Attributes:
        score: a choice: 1 where the right one was named under every order shown; a number: its MRA.
        mean: the mean over the orders shown; the same as `score` where there is one.
        parsed: share of the responses that are an answer at all; the others score 0.
    """

    score: float
    mean: float
    parsed: float


def score_item(answered: Answered) -> ItemScore:
    """Score the replies to one question."""
    item, replies = answered.item, answered.replies
    if item.kind is Kind.NUMBER:
        given = [parse_number(reply.text) for reply in replies]
        scores = [0.0 if number is None else relative_accuracy(number, item.answer) for number in given]
        parsed = [number is not None for number in given]
    else:
        named = [_named(item, reply) for reply in replies]
        scores = [float(choice is not None and is_right(item, choice)) for choice in named]
        parsed = [choice is not None for choice in named]
    return ItemScore(min(scores), sum(scores) / len(scores), sum(parsed) / len(parsed))


def relative_accuracy(given: float, truth: float) -> float:
    """Mean relative accuracy of one number, see `relative_accuracies`."""
    return float(relative_accuracies(np.array([given]), np.array([truth]))[0, 0])


def relative_accuracies(given: Floats, truths: Floats) -> Floats:
    """Mean relative accuracy (MRA; VSI-Bench, arXiv 2412.14171) of each number against each truth.

    The share of `THRESHOLDS` t with |given - truth| / |truth| <= 1 - t. Where the truth is 0 no error is small: 1 for
    exactly 0, else 0.

    Args:
        given: float64 (N,).
        truths: float64 (M,).

    Returns:
        float64 (N, M), 0 to 1.
    """
    errors = np.abs(given[:, None] - truths[None, :])
    sizes = np.abs(truths)[None, :]
    shares = np.divide(errors, sizes, out=np.where(errors == 0, 0.0, np.inf), where=sizes > 0)
    allowed = 1 - np.array(THRESHOLDS) + _SLACK
    accuracies: Floats = (shares[:, :, None] <= allowed).mean(axis=2)
    return accuracies


def is_right(item: SuiteItem, choice: int) -> bool:
    """Whether a choice is the right one, or reads exactly like it."""
    return normalise(item.choices[choice]) == normalise(item.truth)


def _named(item: SuiteItem, reply: Reply) -> int | None:
    place = parse_choice(reply.text, [item.choices[index] for index in reply.order])
    return None if place is None else reply.order[place]
