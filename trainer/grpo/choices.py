"""Which tokens of an answer the student chose, and among what: a grammar forces the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from world2vlm.vlm.grammar import Constraint


@dataclass(frozen=True)
class Choice:
    """One token of an answer that was chosen.

    Attributes:
        place: its index in the answer; the answer's length for the end token.
        token: what was chosen.
        allowed: ids that could have been.
    """

    place: int
    token: int
    allowed: NDArray[np.int64]


def choices(constraint: Constraint, answer: Sequence[int], eos: int) -> list[Choice]:
    """Follow a whole answer through its grammar.

    Args:
        constraint: the state before the first token; used up.
        answer: ids, the end token left out.
        eos: the end token, which is a choice where the answer could have gone on.
    """
    found = []
    place = len(constraint.begin())
    while place < len(answer):
        found.append(Choice(place, answer[place], constraint.allowed()))
        place += 1 + len(constraint.take(answer[place]))
    if not constraint.is_done:
        found.append(Choice(place, eos, constraint.allowed()))
    return found
