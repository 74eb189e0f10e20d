"""Asking a suite's questions: in which order choices are shown, and what the student reads.

Files tend to list the right choice at a telling place: in those that circulate for SAT it is always the first. So the
choices are shuffled for each question, the same way every time, or shown in every rotation ("circular evaluation",
MMBench, arXiv 2307.06281), where only a student that is right under all of them knows the answer.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from trainer.suites.answerers import Answerer, Query
from trainer.suites.items import LETTERS, Kind, SuiteItem
from world2vlm.errors import InvalidInputError

MAX_NEW_TOKENS = 16
_ITEMS = 16
_HOW = {
    Kind.CHOICE: "Answer with the letter of one choice only.",
    Kind.NUMBER: "Answer with one number only.",
}


class Order(Enum):
    """In which order the choices are shown."""

    PUBLISHED = "published"
    SHUFFLED = "shuffled"
    CIRCULAR = "circular"


@dataclass(frozen=True)
class Reply:
    """A response to one showing of a question.

    Attributes:
        order: indices of the item's choices in the order shown; empty for a number.
        text: what was said.
    """

    order: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Answered:
    """A question with its replies, one for each order shown, and how many pictures were shown."""

    item: SuiteItem
    replies: tuple[Reply, ...]
    images_used: int


def ask(
    answerer: Answerer,
    items: Sequence[SuiteItem],
    order: Order,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> list[Answered]:
    """Ask all questions, group by group, so that what a group shows is decoded once.

    Args:
        answerer: who is asked.
        items: the questions.
        order: how the choices are shown.
        seed: of the shuffles; each question has its own, which depends on nothing but this and its id.
        on_progress: told how many more questions are done.

    Returns:
        In the order of `items`.

    Raises:
        InvalidInputError: a picture cannot be read, or the answerer gave more or fewer responses than it was asked.
    """
    found: dict[int, Answered] = {}
    for batch in _batches(items):
        asked = [(index, _orders(items[index], order, seed)) for index in batch]
        shown = {index: items[index].pictures.load(answerer.max_images) for index in batch}
        queries = [Query(shown[index], prompt(items[index], o)) for index, orders in asked for o in orders]
        texts = iter(_answer(answerer, queries))
        for index, orders in asked:
            replies = tuple(Reply(o, next(texts)) for o in orders)
            found[index] = Answered(items[index], replies, len(shown[index]))
        if on_progress is not None:
            on_progress(len(batch))
    return [found[index] for index in range(len(items))]


def prompt(item: SuiteItem, order: Sequence[int]) -> str:
    """What is asked: the question, the choices in this order with their letters, and how to answer."""
    choices = [f"{letter}. {item.choices[index]}" for letter, index in zip(LETTERS, order, strict=False)]
    return "\n".join([item.question, *choices, _HOW[item.kind]])


def sample(items: Sequence[SuiteItem], limit: int, seed: int = 0) -> list[SuiteItem]:
    """`limit` of the questions, drawn at random but the same every time, in their order; all where 0 or too many.

    The first ones would not do: files are sorted by question type or by scene.
    """
    if not 0 < limit < len(items):
        return list(items)
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), limit))]


def _orders(item: SuiteItem, order: Order, seed: int) -> list[tuple[int, ...]]:
    indices = list(range(len(item.choices)))
    if order is Order.PUBLISHED or not indices:
        return [tuple(indices)]
    random.Random(f"{seed}/{item.id}").shuffle(indices)
    turns = len(indices) if order is Order.CIRCULAR else 1
    return [tuple(indices[turn:] + indices[:turn]) for turn in range(turns)]


def _batches(items: Sequence[SuiteItem]) -> Iterator[list[int]]:
    by_group = sorted(range(len(items)), key=lambda index: items[index].group)
    for _, group in groupby(enumerate(by_group), key=lambda pair: pair[0] // _ITEMS):
        yield [index for _, index in group]


def _answer(answerer: Answerer, queries: Sequence[Query]) -> list[str]:
    texts = answerer.answer(queries, MAX_NEW_TOKENS)
    if len(texts) != len(queries):
        raise InvalidInputError(f"the student gave {len(texts)} responses to {len(queries)} questions")
    return texts
