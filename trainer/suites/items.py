"""Questions of a published suite, whatever file they come from."""

import math
import string
from dataclasses import dataclass
from enum import Enum

from trainer.suites.pictures import Pictures
from world2vlm.errors import InvalidInputError

LETTERS = string.ascii_uppercase
"""What choices are called, in the order they are shown in."""


class Kind(Enum):
    """How a question is answered, and so how the answer is read and scored."""

    CHOICE = "choice"
    NUMBER = "number"


@dataclass(frozen=True)
class SuiteItem:
    """One question.

    Attributes:
        id: what its suite calls it.
        category: its question type, as the suite names it.
        question: the text without its choices.
        choices: their texts without letters, in the order of the file; empty where a number is asked for.
        answer: index of the right choice, or the true number in the unit that the question names.
        pictures: what is shown.
        group: scene, video or picture: questions of one group are not independent.
    """

    id: str
    category: str
    question: str
    choices: tuple[str, ...]
    answer: int | float
    pictures: Pictures
    group: str

    def __post_init__(self) -> None:
        if not self.question or not self.category:
            raise InvalidInputError("a question needs a text and a type")
        if self.kind is Kind.NUMBER:
            if not math.isfinite(self.answer):
                raise InvalidInputError(f"the true answer {self.answer} is no number")
            return
        if not 2 <= len(self.choices) <= len(LETTERS):
            raise InvalidInputError(f"a question has 2 to {len(LETTERS)} choices, not {len(self.choices)}")
        if not (isinstance(self.answer, int) and 0 <= self.answer < len(self.choices)):
            raise InvalidInputError(f"the right choice is no. {self.answer} of {len(self.choices)}")

    @property
    def kind(self) -> Kind:
        """Whether a choice or a number is asked for."""
        return Kind.CHOICE if self.choices else Kind.NUMBER

    @property
    def truth(self) -> str:
        """The true answer as text."""
        return self.choices[int(self.answer)] if self.choices else f"{self.answer:g}"
