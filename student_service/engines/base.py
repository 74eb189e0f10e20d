"""The port between the service and whatever runs the model."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from world2vlm.errors import UnavailableError


@dataclass(frozen=True)
class Query:
    """One question as a model reads it.

    Attributes:
        images: one or two encoded pictures (PNG, JPEG or WebP), oldest first.
        text: the question without image tags.
        task: code of the task whose form the answer must have; empty for free text.
    """

    images: tuple[bytes, ...]
    text: str
    task: str = ""


@dataclass(frozen=True)
class Sizes:
    """What an engine is made for.

    Attributes:
        batch: queries at once.
        question_tokens, new_tokens: tokens of a question and of an answer at most.
        image_bytes, image_pixels: of one picture at most.
    """

    batch: int = 8
    question_tokens: int = 512
    new_tokens: int = 64
    image_bytes: int = 16 << 20
    image_pixels: int = 40_000_000


DEFAULT_SIZES = Sizes()


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: the raw answer.
        probability: product of the probabilities of the answer's choices, 0 to 1.
        prompt_tokens: tokens of the question, the images' included.
        answer_tokens: tokens of the answer.
    """

    text: str
    probability: float
    prompt_tokens: int
    answer_tokens: int

    @property
    def has_probability(self) -> bool:
        """Whether the probability is one, to rounding: weights that are broken give others."""
        return math.isfinite(self.probability) and 0 <= self.probability <= 1.000001


@dataclass(frozen=True)
class Update:
    """News of one query: text just added, and at its end either the reply or what went wrong."""

    key: int
    text: str = ""
    reply: Reply | None = None
    error: Exception | None = None


class EngineLostError(UnavailableError):
    """What ran the model is gone, and the queries that it worked on with it; asking again may help."""


class Engine(Protocol):
    """One loaded checkpoint that works on several queries at once; they come and go between steps.

    All methods belong to one thread, but for `wake`, `serve` and `close`.

    Attributes:
        capacity: queries it works on at once.
    """

    capacity: int

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        """Take in a query; at most `capacity` at once.

        Args:
            key: of the caller's choice.
            query: what is asked.
            max_new_tokens: where to stop at the latest.
            streams: whether somebody waits for pieces of the text; else they may all come with the reply.

        Raises:
            InvalidInputError: the model can't take it; an engine that finds out later says so in an update.
            UnavailableError: nothing runs the model now.
        """
        ...

    def drop(self, key: int) -> None:
        """Stop working on a query, without an update; nothing happens where it has ended."""
        ...

    def step(self) -> list[Update]:
        """Work on all admitted queries for a moment: one token, or whatever news a remote engine has.

        The pieces of text of a query add up to its reply's text. Where it raises, all admitted queries are lost.
        """
        ...

    def wake(self) -> None:
        """End a `step` that only waits for news, since there is more to be admitted; for other threads."""
        ...

    def serve(self) -> None:
        """From now on live queries come: until then the engine leaves the machine to whatever serves meanwhile."""
        ...

    def close(self) -> None:
        """Release the weights. Not used afterwards; closing twice is harmless."""
        ...


LookedUp = Counter[tuple[str, bool]]
"""Lookups in an engine's caches: how many, by cache (`features` or `pictures`) and whether they found something."""

Loader = Callable[[Path], Engine]
"""Loads a verified checkpoint folder; raises PreconditionError when the checkpoint is unfit."""


def answer(engine: Engine, queries: Sequence[Query], max_new_tokens: int) -> list[Reply]:
    """Let an engine that does nothing else answer queries, in order.

    Raises:
        InvalidInputError: the model can't take one of them.
    """
    waiting = list(range(len(queries)))[::-1]
    replies: dict[int, Reply] = {}
    under_way = 0
    while len(replies) < len(queries):
        while waiting and under_way < engine.capacity:
            key = waiting.pop()
            engine.admit(key, queries[key], max_new_tokens)
            under_way += 1
        for update in engine.step():
            if update.error is not None:
                raise update.error
            if update.reply is not None:
                replies[update.key] = update.reply
                under_way -= 1
    return [replies[key] for key in range(len(queries))]
