"""Cheating baselines: what is reached without a look at the pictures, by four kinds of guess.

They are fitted on the very questions they are scored on, as VSI-Bench's frequency baseline is: that flatters the
guesser rather than the student. They are scored as the student is, under the same orders of the choices; each score is
an expected one: nothing is drawn.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.suites.asking import Answered
from trainer.suites.items import Kind, SuiteItem
from trainer.suites.parsing import normalise
from trainer.suites.scoring import is_right, relative_accuracies

Floats = NDArray[np.float64]
Guess = Callable[[Answered], Mapping[str, float]]

GUESSES = ("chance", "first", "frequent", "longest")
"""The baselines.

chance: any choice, and kept under every order; for a number, the true answer of any other question of its type.
first: the choice that is shown first, under every order. Numbers: as chance.
frequent: the answer that is right most often for its type, where it is on offer, else chance; the best constant number.
longest: the choice with the longest text. Numbers: as chance.
"""

LISTED_FIRST = "listed_first"
"""No baseline but a warning: the choice that the file lists first, whatever was shown. Far from chance, the file gives
its answers away by their place. Numbers: as chance."""

# Constants that are tried, the most frequent ones, where there are very many.
_MOST_CONSTANTS = 512


def guess_scores(answered: Sequence[Answered]) -> dict[str, Floats]:
    """Expected score of each of `GUESSES`, and of `LISTED_FIRST`, on each question: name -> float64 (N,)."""
    by_type: Mapping[str, list[SuiteItem]] = defaultdict(list)
    for one in answered:
        by_type[one.item.category].append(one.item)
    guesses = {
        category: (_fit_numbers if same[0].kind is Kind.NUMBER else _fit_choices)(same)
        for category, same in by_type.items()
    }
    scores = [guesses[one.item.category](one) for one in answered]
    names = (*GUESSES, LISTED_FIRST)
    return {name: np.array([score[name] for score in scores], dtype=np.float64) for name in names}


def _fit_choices(items: Sequence[SuiteItem]) -> Guess:
    # Ties go by the text, so that the order of the questions plays no part.
    ranked = sorted(Counter(normalise(item.truth) for item in items).items(), key=lambda pair: (-pair[1], pair[0]))
    frequent = ranked[0][0]

    def guess(one: Answered) -> Mapping[str, float]:
        item = one.item
        right = [is_right(item, index) for index in range(len(item.choices))]
        chance = sum(right) / len(right)
        offered = frequent in {normalise(choice) for choice in item.choices}
        most = max(map(len, item.choices))
        longest = [good for good, choice in zip(right, item.choices, strict=True) if len(choice) == most]
        return {
            "chance": chance,
            "first": float(all(right[reply.order[0]] for reply in one.replies)),
            "frequent": float(normalise(item.truth) == frequent) if offered else chance,
            "longest": sum(longest) / len(longest),
            LISTED_FIRST: float(right[0]),
        }

    return guess


def _fit_numbers(items: Sequence[SuiteItem]) -> Guess:
    counts = Counter(float(item.answer) for item in items)
    truths = np.array(sorted(counts), dtype=np.float64)
    weights = np.array([counts[truth] for truth in truths.tolist()], dtype=np.float64)
    tried = truths[np.argsort(-weights, kind="stable")[:_MOST_CONSTANTS]]
    best = tried[[np.argmax(relative_accuracies(tried, truths) @ weights)]]

    def guess(one: Answered) -> Mapping[str, float]:
        truth = np.array([one.item.answer], dtype=np.float64)
        others = weights - (truths == one.item.answer)
        scores = relative_accuracies(truths, truth)[:, 0]
        chance = float(scores @ others / others.sum()) if others.sum() else 0.0
        constant = float(relative_accuracies(best, truth)[0, 0])
        return {"chance": chance, "first": chance, "frequent": constant, "longest": chance, LISTED_FIRST: chance}

    return guess
