"""What an answer may look like, token by token, in the tokenizer of any model.

Each answer has one spelling, the one that the model is trained on: words are tokenised where they stand in an answer,
and the grammar is made of their tokens. So the two words of a yes or no are the only choices, an answer's length has a
bound, and a token that must follow costs no forward pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import llguidance
import llguidance.hf

from world2vlm.actions import Action, Primitive
from world2vlm.boxes import SCALE, Box
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import TASKS, Answer, AnswerKind, Task, format_answer, get_task
from world2vlm.vlm.fullsize.conversation import Form
from world2vlm.vlm.fullsize.corners import BoxConstraint, Place
from world2vlm.vlm.fullsize.spelling import Rules
from world2vlm.vlm.grammar import ACTIONS, MAX_DEGREES, MAX_METRES, Constraint
from world2vlm.vlm.vocabulary import decimal_words, number_words

_MOVES = [primitive.value for primitive in Primitive if not primitive.is_turn]
_TURNS = [primitive.value for primitive in Primitive if primitive.is_turn]
_BOX_TASK = next(task.code for task in TASKS.values() if task.kind is AnswerKind.BOX)

Spelt = tuple[tuple[int, ...], ...]
"""Words that may stand in one place, each in its tokens."""


@dataclass(frozen=True)
class _Plan:
    """What an answer is made of, place by place: one of `first`, then from `least` to `most` times one of `later`."""

    first: tuple[tuple[Spelt, ...], ...]
    later: tuple[tuple[Spelt, ...], ...] = ()
    least: int = 0
    most: int = 0

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest answer, without the end token."""
        first, later = (max(map(_longest, places), default=0) for places in (self.first, self.later))
        return first + self.most * later

    def lark(self) -> str:
        """The grammar."""
        rules = Rules()
        first, later = (" | ".join(map(rules.in_order, places)) for places in (self.first, self.later))
        return rules.text(f"({first}) ({later}){{{self.least},{self.most}}}" if self.most else first)


def _longest(places: tuple[Spelt, ...]) -> int:
    return sum(max(map(len, spelt)) for spelt in places)


class SpeltGrammars:
    """The grammars of all tasks over one tokenizer, compiled at first use.

    Args:
        tokenizer: the model's own; a fast one.
        form: of the model's conversations.
    """

    def __init__(self, tokenizer: Any, form: Form) -> None:
        """Read the tokenizer.

        Raises:
            InvalidInputError: it is of a kind that llguidance does not know.
        """
        self._tokenizer, self._form = tokenizer, form
        try:
            self._llguidance = llguidance.hf.from_tokenizer(tokenizer, eos_token=form.end)
        except ValueError as error:
            raise InvalidInputError(f"the tokenizer is none that llguidance knows: {error}") from error
        self._compiled, self._planned = cache(self._compile), cache(self._plan)
        self._motions, self._corners = cache(self._motions_behind), cache(self._places)

    def constraint(self, task: str) -> Constraint:
        """See `TaskGrammars.constraint`."""
        matcher = self._compiled(task).deep_copy()
        if get_task(task).kind is AnswerKind.BOX:
            return BoxConstraint(matcher, self._llguidance, self._corners())
        return Constraint(matcher, self._llguidance, None)

    def max_answer_tokens(self, task: str) -> int:
        """Tokens of the longest answer that a task's grammar allows, the end token included."""
        return self._planned(task).max_tokens + 1

    def _compile(self, code: str) -> llguidance.LLMatcher:
        grammar = llguidance.LLMatcher.grammar_from_lark(self._planned(code).lark())
        matcher = llguidance.LLMatcher(self._llguidance, grammar)
        if matcher.is_error():
            raise RuntimeError(f"task {code} has a broken grammar: {matcher.get_error()}")
        for answer in _examples(get_task(code)):
            spelt = self._form.spell(self._tokenizer, answer)
            if matcher.deep_copy().validate_tokens(spelt) != len(spelt):
                raise InvalidInputError(f"the tokenizer spells {answer!r} otherwise than its words one by one")
        return matcher

    def _plan(self, code: str) -> _Plan:
        task = get_task(code)
        if task.kind is AnswerKind.BINARY:
            return _Plan(((self._spell("", task.words),),))
        if task.kind is AnswerKind.BOX:
            low, high = number_words()[:SCALE], number_words()[1:]
            corners = (
                self._spell("", [f"[{word}" for word in low]),
                self._spell("[1", [f", {word}" for word in low]),
                self._spell("[1, 2", [f", {word}" for word in high]),
                self._spell("[1, 2, 3", [f", {word}" for word in high]),
                self._spell("[1, 2, 3, 4", ["]"]),
            )
            return _Plan((corners,))
        move, turn = self._motions("")
        least, most = ACTIONS[code]
        first = {"A1": (move,), "A2": (turn,)}.get(code, (move, turn))
        return _Plan(first, self._motions("move forward 1 meters") if most > 1 else (), least - 1, most - 1)

    def _places(self) -> list[Place]:
        (corners,) = self._planned(_BOX_TASK).first
        return [Place(spelt, first) for spelt, first in zip(corners, (0, 0, 1, 1, SCALE + 1), strict=True)]

    def _motions_behind(self, before: str) -> tuple[tuple[Spelt, ...], tuple[Spelt, ...]]:
        """A move and a turn behind another action, or behind none."""
        metres = [*decimal_words(), *number_words()[1 : MAX_METRES + 1]]
        degrees = number_words()[1 : MAX_DEGREES + 1]
        return self._action(before, _MOVES, metres, " meters"), self._action(before, _TURNS, degrees, " degrees")

    def _action(self, before: str, verbs: Sequence[str], numbers: Sequence[str], unit: str) -> tuple[Spelt, ...]:
        # Spaces belong to what is behind them: that is how most tokenizers keep them.
        separator = "; " if before else ""
        verb = f"{before}{separator}{verbs[0]}"
        return (
            self._spell(before, [f"{separator}{word}" for word in verbs]),
            self._spell(verb, [f" {word}" for word in numbers]),
            self._spell(f"{verb} {numbers[0]}", [unit]),
        )

    def _spell(self, before: str, words: Iterable[str]) -> Spelt:
        """The tokens of words behind a beginning of an answer."""
        known = self._form.spell(self._tokenizer, before) if before else []
        found = [self._form.spell(self._tokenizer, before + word) for word in words]
        if any(spelt[: len(known)] != known or len(spelt) == len(known) for spelt in found):
            raise InvalidInputError("the tokenizer keeps words together that an answer's grammar must tell apart")
        return tuple(tuple(spelt[len(known) :]) for spelt in found)


def _examples(task: Task) -> list[str]:
    """Answers to a task, to try its grammar on."""
    move, turn = Action(Primitive.BACKWARD, 2.5), Action(Primitive.TURN_RIGHT, 135)
    answers: dict[AnswerKind, list[Answer]] = {
        AnswerKind.BINARY: [True, False],
        AnswerKind.BOX: [Box(0, 7, 64, 1000)],
        AnswerKind.MOTION: [(turn,)] if task.code == "A2" else [(move,)],
        AnswerKind.SEQUENCE: [(move, turn), (turn, move)],
    }
    return [format_answer(task.code, answer) for answer in answers[task.kind]]
