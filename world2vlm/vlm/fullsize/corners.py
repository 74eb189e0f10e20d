"""The one rule of a box's grammar that a grammar can't say: its corners are in order."""

from collections.abc import Iterable, Sequence

import llguidance
import numpy as np
from numpy.typing import NDArray

from world2vlm.vlm.grammar import Constraint


class Place:
    """One place of a box's spelling: a number that is larger than another, or what closes the box.

    Attributes:
        reach: the largest number that can come of a beginning of its tokens.
        values: the numbers, by their tokens.
    """

    def __init__(self, spelt: Iterable[tuple[int, ...]], first: int) -> None:
        self.values = {tokens: value for value, tokens in enumerate(spelt, start=first)}
        self.reach = {tokens[:end]: value for tokens, value in self.values.items() for end in range(1, len(tokens) + 1)}


class BoxConstraint(Constraint):
    """A box's: its corners are in order, something a grammar can't say."""

    def __init__(
        self, matcher: llguidance.LLMatcher, tokenizer: llguidance.LLTokenizer, places: Sequence[Place]
    ) -> None:
        super().__init__(matcher, tokenizer, None)
        self._places = places
        self._known: list[int] = []
        self._begun: tuple[int, ...] = ()

    def allowed(self) -> NDArray[np.int64]:
        """See `Constraint.allowed`."""
        ids = super().allowed()
        # The first corner may lie anywhere.
        return ids if len(self._known) < 2 else ids[[self._may_follow(token) for token in ids.tolist()]]

    def _consume(self, token: int) -> None:
        super()._consume(token)
        place = self._places[len(self._known)]
        if (*self._begun, token) in place.reach:
            self._begun = (*self._begun, token)
        else:
            self._known.append(place.values[self._begun])
            self._begun = (token,)

    def _may_follow(self, token: int) -> bool:
        place, low = self._places[len(self._known)], self._known[-2]
        longer = (*self._begun, token)
        # What does not go on with a number ends it.
        return place.reach[longer] > low if longer in place.reach else place.values[self._begun] > low
