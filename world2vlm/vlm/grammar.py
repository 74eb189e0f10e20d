"""What an answer may look like, token by token: one grammar for each task (llguidance's Lark dialect).

Words that the tokenizer keeps whole are named by their token ids, so an answer has one spelling only, the one that the
student was trained on, and a token that the grammar leaves no choice about is known without a forward pass.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import llguidance
import llguidance.hf
import llguidance.numpy as bitmasks
import numpy as np
from numpy.typing import NDArray

from world2vlm.actions import Primitive
from world2vlm.boxes import SCALE
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import AnswerKind, Task, get_task
from world2vlm.vlm.vocabulary import decimal_words, number_words

MAX_METRES = 9
MAX_DEGREES = 360
_MOVES = [f"{primitive.value} " for primitive in Primitive if not primitive.is_turn]
_TURNS = [f"{primitive.value} " for primitive in Primitive if primitive.is_turn]
# Actions that a task's answer holds, from its question (World2VLM's words): fewest and most.
ACTIONS = {"A1": (1, 1), "A2": (1, 1), "A3": (2, 3), "D3": (1, 2)}
_TOKENS_PER_ACTION = 4  # with the separator, or the end token after the last one
_BOX_TOKENS = 10


def max_answer_tokens(task: str) -> int:
    """Tokens of the longest answer that a task's grammar allows, the end token included; in the built-in tokenizer."""
    kind = get_task(task).kind
    if kind is AnswerKind.BINARY:
        return 2
    return _BOX_TOKENS if kind is AnswerKind.BOX else ACTIONS[task][1] * _TOKENS_PER_ACTION


class TaskGrammars(Protocol):
    """The grammars of all tasks over one tokenizer."""

    def constraint(self, task: str) -> "Constraint":
        """The state before the first token of an answer to `task`.

        Raises:
            InvalidInputError: no such task.
        """
        ...


class Grammars:
    """The grammars of all tasks over a built-in student's tokenizer, compiled at first use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._llguidance = llguidance.hf.from_tokenizer(tokenizer)
        self._compiled = cache(self._compile)
        values = np.full(self._llguidance.vocab_size, -1)
        values[tokenizer.convert_tokens_to_ids(number_words())] = np.arange(SCALE + 1)
        self._values = values

    def constraint(self, task: str) -> "Constraint":
        """See `TaskGrammars.constraint`."""
        is_box = get_task(task).kind is AnswerKind.BOX
        return Constraint(self._compiled(task).deep_copy(), self._llguidance, self._values if is_box else None)

    def _compile(self, task: str) -> llguidance.LLMatcher:
        grammar = llguidance.LLMatcher.grammar_from_lark(self._lark(get_task(task)))
        matcher = llguidance.LLMatcher(self._llguidance, grammar)
        if matcher.is_error():
            raise RuntimeError(f"task {task} has a broken grammar: {matcher.get_error()}")
        return matcher

    def _lark(self, task: Task) -> str:
        one_of = self._one_of
        if task.kind is AnswerKind.BINARY:
            return f"start: {one_of(task.words)}"
        if task.kind is AnswerKind.BOX:
            comma, value = one_of([", "]), one_of(number_words())
            return f"start: {one_of(['['])} n {comma} n {comma} n {comma} n {one_of([']'])}\nn: {value}"
        metres = [*decimal_words(), *number_words()[1 : MAX_METRES + 1]]
        degrees = number_words()[1 : MAX_DEGREES + 1]
        least, most = ACTIONS[task.code]
        action = {"A1": "move", "A2": "turn"}.get(task.code, "(move | turn)")
        more = f" (separator {action}){{{least - 1},{most - 1}}}" if most > 1 else ""
        return (
            f"start: {action}{more}\n"
            f"move: {one_of(_MOVES)} {one_of(metres)} {one_of([' meters'])}\n"
            f"turn: {one_of(_TURNS)} {one_of(degrees)} {one_of([' degrees'])}\n"
            f"separator: {one_of(['; '])}"
        )

    def _one_of(self, words: Sequence[str]) -> str:
        ids = self._tokenizer.convert_tokens_to_ids(list(words))
        if self._tokenizer.unk_token_id in ids:
            raise InvalidInputError(f"the tokenizer does not keep each of {', '.join(words[:5])} whole")
        return f"<[{','.join(map(str, sorted(ids)))}]>"


class Constraint:
    """How far one answer has come, and what may follow."""

    def __init__(
        self, matcher: llguidance.LLMatcher, tokenizer: llguidance.LLTokenizer, values: NDArray[np.int64] | None
    ) -> None:
        self._matcher = matcher
        self._mask = bitmasks.allocate_token_bitmask(1, tokenizer.vocab_size)
        self._size = tokenizer.vocab_size
        self._values = values
        self._corners: list[int] = []

    @property
    def is_done(self) -> bool:
        """Whether the answer is complete: nothing but the end token may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.int64]:
        """Ids of the tokens that may follow, ascending."""
        bitmasks.fill_next_token_bitmask(self._matcher, self._mask, 0)
        ids = np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), count=self._size, bitorder="little"))
        if self._values is None:
            return ids
        # A box's corners are in order: something a grammar can't say.
        low, high = (0, SCALE - 1) if len(self._corners) < 2 else (self._corners[-2] + 1, SCALE)
        values = self._values[ids]
        return ids[(values < 0) | (values >= low) & (values <= high)]

    def take(self, token: int) -> list[int]:
        """Accept one allowed token; returns the tokens that must follow it, which are accepted, too."""
        forced = []
        self._consume(token)
        if not self.is_done:
            forced = list(self._matcher.compute_ff_tokens())
            for follower in forced:
                self._consume(follower)
        return forced

    def begin(self) -> list[int]:
        """The tokens that every answer begins with; to be called once, first."""
        forced = list(self._matcher.compute_ff_tokens())
        for token in forced:
            self._consume(token)
        return forced

    def _consume(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"the grammar does not allow token {token} here: {self._matcher.get_error()}")
        if self._values is not None and self._values[token] >= 0:
            self._corners.append(int(self._values[token]))
