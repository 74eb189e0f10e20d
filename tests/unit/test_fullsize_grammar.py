"""The tasks' grammars over tokenizers of several kinds: each answer has its trained spelling, and no other."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.fullsize_kit import corpus
from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import TASKS, Answer, format_answer, parse_answer
from world2vlm.vlm.fullsize.conversation import Form
from world2vlm.vlm.fullsize.grammar import SpeltGrammars
from world2vlm.vlm.fullsize.spelling import Rules

# Llama's: a space is a character of its own, and what is no piece is bytes.
_PIECES = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)
_MARKS = pre_tokenizers.Split(Regex(r"[;,\[\]]"), "isolated")
_DIGITS = {"one by one": r"\p{N}", "up to three": r"\p{N}{1,3}"}


def build(train: Callable[[Tokenizer], None]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    train(tokenizer)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def of_bytes(pattern: str) -> PreTrainedTokenizerFast:
    """As Qwen's and Llama 3's: words with the space before them; digits as the pattern says."""

    def train(tokenizer: Tokenizer) -> None:
        words = rf" ?\p{{L}}+|{pattern}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(words), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet))

    return build(train)


def of_pieces() -> PreTrainedTokenizerFast:
    """As LLaVA 1.5's: no words but pieces, their space a character of its own."""

    def train(tokenizer: Tokenizer) -> None:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(individual_digits=True), _MARKS]
        )
        tokenizer.decoder = _PIECES
        alphabet = [chr(code) for code in range(33, 127)]
        tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet))

    return build(train)


TOKENIZERS = {
    **{f"bytes, digits {kind}": of_bytes(pattern) for kind, pattern in _DIGITS.items()},
    "pieces": of_pieces(),
}


@pytest.fixture(params=itertools.product(TOKENIZERS, ("", " ")), ids=str)
def grammars(request: pytest.FixtureRequest) -> tuple[SpeltGrammars, Any, Form]:
    name, lead = request.param
    tokenizer = TOKENIZERS[name]
    before = f"<s>USER: ?\nASSISTANT:{lead}" if lead else "<s>USER: ?\nASSISTANT:\n"
    form = Form(lead, before, len(before) - len(lead), tokenizer.eos_token_id)
    return SpeltGrammars(tokenizer, form), tokenizer, form


def answers(task: str) -> list[Answer]:
    kind = TASKS[task].kind.value
    move, turn = Action(Primitive.LEFT, 0.7), Action(Primitive.TURN_RIGHT, 200)
    small, large = Action(Primitive.FORWARD, 3), Action(Primitive.TURN_LEFT, 5)
    if kind == "binary":
        return [True, False]
    if kind == "box":
        return [Box(0, 0, 1, 1), Box(999, 999, 1000, 1000), Box(95, 400, 100, 450), Box(7, 63, 70, 640)]
    if kind == "motion":
        return [(turn,), (large,)] if task == "A2" else [(move,), (small,)]
    found: list[Answer] = [(turn, small), (move, large)]
    return [*found, (small, turn, move)] if task == "A3" else [*found, (move,)]


@pytest.mark.parametrize("task", TASKS)
def test_every_true_answer_can_be_given_as_it_is_trained(grammars: tuple[SpeltGrammars, Any, Form], task: str) -> None:
    made, tokenizer, form = grammars
    for answer in answers(task):
        spelt = form.spell(tokenizer, format_answer(task, answer))
        assert len(spelt) < made.max_answer_tokens(task)
        constraint = made.constraint(task)
        given = constraint.begin()
        while len(given) < len(spelt):
            assert spelt[len(given)] in constraint.allowed()
            given += [spelt[len(given)], *constraint.take(spelt[len(given)])]
        assert given == spelt
        assert constraint.is_done or form.end in constraint.allowed()


@pytest.mark.parametrize("task", TASKS)
def test_whatever_is_drawn_parses_and_ends(grammars: tuple[SpeltGrammars, Any, Form], task: str) -> None:
    made, tokenizer, form = grammars
    rng = np.random.default_rng(0)
    for _ in range(20):
        constraint = made.constraint(task)
        given, token = constraint.begin(), -1
        while not constraint.is_done and token != form.end:
            token = int(rng.choice(constraint.allowed()))
            given += [token, *constraint.take(token)] if token != form.end else []
        parse_answer(task, tokenizer.decode(given))
        assert len(given) < made.max_answer_tokens(task)


def test_a_yes_or_no_is_one_choice(grammars: tuple[SpeltGrammars, Any, Form]) -> None:
    made, *_ = grammars
    constraint = made.constraint("D2")
    constraint.begin()
    allowed = constraint.allowed()
    assert len(allowed) == 2
    constraint.take(int(allowed[0]))
    assert constraint.is_done


def test_a_boxs_corners_are_in_order_wherever_the_first_lies(grammars: tuple[SpeltGrammars, Any, Form]) -> None:
    """The smallest and the largest of what may follow, at every step."""
    made, tokenizer, form = grammars
    for low in (0, 9, 95, 99, 100, 899, 989, 998, 999):
        begun = form.spell(tokenizer, f"[{low}, {low},")
        for last in (False, True):
            constraint = made.constraint("D1")
            given = constraint.begin()
            while len(given) < len(begun):
                given += [begun[len(given)], *constraint.take(begun[len(given)])]
            while not constraint.is_done:
                token = constraint.allowed()[-1 if last else 0]
                given += [int(token), *constraint.take(int(token))]
            parse_answer("D1", tokenizer.decode(given))


def test_every_larger_corner_may_follow_and_no_other() -> None:
    tokenizer = TOKENIZERS["bytes, digits up to three"]
    form = Form("", "ASSISTANT:", len("ASSISTANT:"), tokenizer.eos_token_id)
    made = SpeltGrammars(tokenizer, form)
    for low in (0, 95, 998):
        for value in (*range(1, 1000, 7), 996, 999, 1000):
            constraint = made.constraint("D1")
            spelt = form.spell(tokenizer, f"[{low}, 5, {value}, 6]")
            given, possible = constraint.begin(), True
            while possible and len(given) < len(spelt):
                possible = spelt[len(given)] in constraint.allowed()
                given += [spelt[len(given)], *constraint.take(spelt[len(given)])] if possible else []
            assert possible is (value > low), (low, value)


def test_numbers_share_their_rules() -> None:
    rules = Rules()
    name = rules.one_of(tuple(map(int, str(value))) for value in range(1001))
    text = rules.text(name)
    assert len(text.splitlines()) < 12 and "<[0,1,2,3,4,5,6,7,8,9]>" in text


def test_a_tokenizer_that_keeps_words_together_is_refused() -> None:
    def train(tokenizer: Tokenizer) -> None:
        # No words at all: what is frequent becomes one token, spaces and all.
        trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=[chr(code) for code in range(32, 127)])
        tokenizer.decoder = _PIECES
        tokenizer.train_from_iterator(["move forward 1 meters; turn left 2 degrees"] * 50, trainer)

    tokenizer = build(train)
    before = "<s>ASSISTANT:"
    made = SpeltGrammars(tokenizer, Form("", before, len(before), tokenizer.eos_token_id))
    with pytest.raises(InvalidInputError, match="the tokenizer"):
        made.constraint("A3")
