"""The port between the service and whatever runs the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image


@dataclass(frozen=True)
class Query:
    """One question as a model reads it.

    Attributes:
        images: one or two RGB images, oldest first.
        text: the question without image tags.
    """

    images: tuple[Image.Image, ...]
    text: str


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: the raw answer.
        probability: product of the probabilities of the answer's tokens, 0 to 1.
        prompt_tokens: tokens of the question, the images' included.
        answer_tokens: tokens of the answer.
    """

    text: str
    probability: float
    prompt_tokens: int
    answer_tokens: int


class Engine(Protocol):
    """One loaded checkpoint. One call to `answer` at a time; `count_tokens` may be called beside it."""

    def answer(
        self, queries: Sequence[Query], max_new_tokens: int, on_text: Callable[[int, str], None] | None = None
    ) -> list[Reply]:
        """Answer a batch, in order.

        Args:
            queries: the batch; empty gives an empty list.
            max_new_tokens: tokens to generate at most for each.
            on_text: called with (index in the batch, text just added); the pieces add up to the reply's text.

        Raises:
            InvalidInputError: the model can't take a query.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a question's text, its images not counted."""
        ...

    def close(self) -> None:
        """Release the weights. Not used afterwards; closing twice is harmless."""
        ...


Loader = Callable[[Path], Engine]
"""Loads a verified checkpoint folder; raises PreconditionError when the checkpoint is unfit."""
