"""Who answers: a checkpoint, or whatever else has this shape."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

GREY = (110, 110, 110)


@dataclass(frozen=True)
class Query:
    """Pictures, the earlier first, and a text about them."""

    images: tuple[Image.Image, ...]
    text: str


class Answerer(Protocol):
    """Answers free text about pictures.

    Attributes:
        max_images: the most pictures that one query may have.
    """

    max_images: int

    def answer(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        """One response to each query, of at most `max_new_tokens` tokens."""


class Blind:
    """Shows another answerer grey pictures of the same number and size: what it reaches by the text alone."""

    def __init__(self, answerer: Answerer) -> None:
        self.max_images = answerer.max_images
        self._answerer = answerer

    def answer(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        """See `Answerer.answer`."""
        grey = [Query(tuple(Image.new("RGB", image.size, GREY) for image in q.images), q.text) for q in queries]
        return self._answerer.answer(grey, max_new_tokens)
