"""The tokenizer: any text comes back, and every word it was made for is one token wherever it stands."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from world2vlm.actions import Action, Primitive, parse_actions
from world2vlm.boxes import Box
from world2vlm.tasks import TASKS, Question, format_answer, parse_answer
from world2vlm.vlm.tokenizer import SPECIAL_TOKENS, build_tokenizer
from world2vlm.vlm.vocabulary import CATEGORY_WORDS, COLOUR_WORDS, all_words, number_words

TOKENIZER = build_tokenizer()
WORDS = frozenset(all_words())
_TEXT = st.text().filter(lambda text: not any(token in text for token in SPECIAL_TOKENS))


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def words(text: str) -> list[str]:
    return [TOKENIZER.decode([token]) for token in ids(text)]


@given(_TEXT)
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(ids(text)) == text


def test_every_word_is_one_token() -> None:
    broken = [word for word in all_words() if len(ids(word)) != 1]
    assert broken == []
    assert len({ids(word)[0] for word in all_words()}) == len(all_words())


def test_special_tokens_are_single_and_no_text_token_is_one_of_them() -> None:
    assert [ids(token) for token in SPECIAL_TOKENS] == [[TOKENIZER.convert_tokens_to_ids(t)] for t in SPECIAL_TOKENS]
    assert TOKENIZER.decode(ids("<|im_end|>"), skip_special_tokens=True) == ""
    assert (TOKENIZER.pad_token, TOKENIZER.eos_token, TOKENIZER.padding_side) == ("<|pad|>", "<|im_end|>", "left")


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_numbers_stay_whole_inside_a_box(first: int, second: int) -> None:
    assert words(f"[{first}, {second}]") == ["[", str(first), ", ", str(second), "]"]


@pytest.mark.parametrize("category", CATEGORY_WORDS)
def test_a_name_in_a_question_is_its_words(category: str) -> None:
    for colour in COLOUR_WORDS:
        expected = ["Where is the ", colour, " ", category, " in the second image", "?"]
        assert words(f"Where is the {colour} {category} in the second image?") == expected


def test_counts_and_sides_are_short() -> None:
    assert words("How many chairs are there?") == ["How many ", "chair", "s are there", "?"]
    assert len(ids("Which side is the red lamp on in the first image?")) == 7


def question(code: str, actions: list[Action]) -> Question:
    fields: dict[str, Any] = {
        "actions": tuple(actions), "object": "bookshelf", "box": Box(0, 10, 500, 1000),
        "second_box": Box(3, 4, 50, 600),
    }  # fmt: skip
    return Question(code, **{name: value for name, value in fields.items() if name in TASKS[code].needs})


def actions_of(data: st.DataObject, least: int, most: int) -> list[Action]:
    """Actions on World2VLM's grid: 0.1 m and whole degrees."""
    move = st.builds(
        lambda primitive, tenths: Action(primitive, tenths / 10),
        st.sampled_from([p for p in Primitive if not p.is_turn]),
        st.integers(1, 59),
    )
    turn = st.builds(
        Action, st.sampled_from([Primitive.TURN_LEFT, Primitive.TURN_RIGHT]), st.integers(1, 180).map(float)
    )
    return data.draw(st.lists(st.one_of(move, turn), min_size=least, max_size=most))


@pytest.mark.parametrize("code", TASKS)
@settings(max_examples=20)
@given(data=st.data())
def test_questions_come_back_and_keep_their_template_whole(code: str, data: st.DataObject) -> None:
    text = question(code, actions_of(data, 1, 3)).text
    pieces = words(text)
    assert "".join(pieces) == text
    own = [literal for literal, *_ in string.Formatter().parse(TASKS[code].template) if literal]
    assert [piece for piece in own if piece not in pieces] == []
    # Nothing falls apart into bytes: apart from boxes, every word is one of those the tokenizer was made for.
    assert set(pieces) <= WORDS


@pytest.mark.parametrize("code", TASKS)
@settings(max_examples=20)
@given(data=st.data())
def test_answers_come_back_and_parse(code: str, data: st.DataObject) -> None:
    kind = TASKS[code].kind.value
    actions = actions_of(data, 2, 3)
    if kind == "motion":
        actions = [Action(Primitive.TURN_LEFT if code == "A2" else Primitive.LEFT, 30.0)]
    answer = {"binary": True, "box": Box(1, 2, 30, 999)}.get(kind, tuple(actions))
    text = format_answer(code, answer)
    assert TOKENIZER.decode(ids(text)) == text
    assert parse_answer(code, text) == answer
    assert set(words(text)) <= WORDS


def test_a_magnitude_off_the_grid_is_still_written() -> None:
    text = "move forward 0.123 meters; turn left 12.5 degrees"
    assert TOKENIZER.decode(ids(text)) == text
    assert [str(action) for action in parse_actions(text)] == text.split("; ")


def test_the_tokenizer_is_the_same_every_time() -> None:
    assert build_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert number_words()[7] == "7"


def test_the_chat_template_writes_the_turns_that_prompts_are_made_of() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "Where is the red chair?"}]
    text = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where is the red chair?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
