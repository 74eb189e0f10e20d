"""What a suite's answers come to: figures by question type and overall, beside what cheating reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.suites.asking import Answered
from trainer.suites.guessing import GUESSES, guess_scores
from trainer.suites.means import Means
from trainer.suites.scoring import score_item
from world2vlm.errors import InvalidInputError

BLIND = "blind"
BASELINES = (*GUESSES, BLIND)
"""What stands beside every score: the guesses, and the same student shown grey pictures (`blind`)."""

Figures = dict[str, dict[str, float]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What changed from one student to another, on the same questions.

    Attributes:
        value, low, high: the difference of the scores with its 95% interval.
        p: two-sided, of a paired randomisation test.
    """

    value: float
    low: float
    high: float
    p: float


def summarise(
    answered: Sequence[Answered], blind: Sequence[Answered], tasks: Mapping[str, str], seed: int = 0
) -> Figures:
    """Figures by row (see `Means.rows`).

    Args:
        answered: the student's answers.
        blind: the same student's, shown grey pictures, to the same questions.
        tasks: see `Suite.tasks`.
        seed: of the intervals.

    Returns:
        For each row `n`, `score`, `low`, `high` (95%), `mean` (over the orders shown), `unparsed` (share of the
        responses that are no answer), one figure for each of `BASELINES`, `listed_first` (see `guessing`), and `skill`:
        0 is the best guess and 1 is perfect; `blind` has no part in it.

    Raises:
        InvalidInputError: no questions, or the two were not asked the same ones.
    """
    _check_same(answered, blind)
    items = [one.item for one in answered]
    means = Means(items, tasks, seed)
    scores = [score_item(one) for one in answered]
    intervals = means.intervals([score.score for score in scores])
    baselines = {name: means.means(values) for name, values in guess_scores(answered).items()}
    baselines[BLIND] = means.means(_scores(blind))
    others = {
        "mean": means.means([score.mean for score in scores]),
        "unparsed": means.means([1 - score.parsed for score in scores]),
        **baselines,
    }
    sizes = means.sizes
    return {
        row: {
            "n": sizes[row],
            "score": interval.value,
            "low": interval.low,
            "high": interval.high,
            "skill": _skill(interval.value, max(baselines[name][row] for name in GUESSES)),
            **{name: values[row] for name, values in others.items()},
        }
        for row, interval in intervals.items()
    }


def compare(
    before: Sequence[Answered], after: Sequence[Answered], tasks: Mapping[str, str], seed: int = 0
) -> dict[str, Change]:
    """Compare two students question by question: `after` minus `before`, by row.

    Raises:
        InvalidInputError: no questions, or the two were not asked the same ones, shown in the same orders.
    """
    _check_same(before, after)
    means = Means([one.item for one in after], tasks, seed)
    differences = _scores(after) - _scores(before)
    p_values = means.p_values(differences)
    return {
        row: Change(change.value, change.low, change.high, p_values[row])
        for row, change in means.intervals(differences).items()
    }


def _scores(answered: Sequence[Answered]) -> Floats:
    return np.array([score_item(one).score for one in answered], dtype=np.float64)


def _skill(score: float, best: float) -> float:
    # Where guessing is perfect there is nothing to show.
    return (score - best) / (1 - best) if best < 1 else 0.0


def _check_same(one: Sequence[Answered], other: Sequence[Answered]) -> None:
    if [_asked(answered) for answered in one] != [_asked(answered) for answered in other]:
        raise InvalidInputError("students can be compared only on the same questions, asked in the same way")


def _asked(answered: Answered) -> tuple[object, ...]:
    return answered.item, [reply.order for reply in answered.replies]
