"""Perception questions: true answers on hand-made and random views, no ambiguous names, and not a word about motion."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher_service import scenes
from tests.vlm_kit import seen
from trainer.perception import CATEGORIES, COLOURS, KINDS, SUFFIXES, WEIGHTS, ask, visible
from world2vlm.boxes import Box, iou, parse_box
from world2vlm.bundles import ObjectView
from world2vlm.vlm.vocabulary import CATEGORY_WORDS, COLOUR_WORDS

CHAIR = seen("red", "chair", (100, 200, 300, 600), 1)
LAMP = seen("blue", "lamp", (700, 100, 800, 300), 2)
SPECK = seen("green", "vase", (0, 0, 10, 10), 3, area=0.001)
TWINS = [seen("white", "stool", (400, 400, 500, 500), 4), seen("white", "stool", (500, 400, 600, 500), 5)]
MOTION = re.compile(r"\b(mov|turn|camera|degree|meter|metre|forward|backward|rotat|walk|step|action)", re.IGNORECASE)

_objects = st.lists(
    st.builds(
        lambda colour, category, x, y, width, height, area: (colour, category, x, y, width, height, area),
        st.sampled_from(COLOURS),
        st.sampled_from(CATEGORIES),
        st.integers(0, 900),
        st.integers(0, 900),
        st.integers(1, 100),
        st.integers(1, 100),
        st.sampled_from([0.001, 0.006, 0.05]),
    ),
    max_size=7,
).map(
    lambda rows: [
        seen(colour, category, (x, y, x + width, y + height), index, area)
        for index, (colour, category, x, y, width, height, area) in enumerate(rows, start=1)
    ]
)


def drawn(kind: str, views: list[ObjectView], suffix: str = "") -> set[tuple[str, str]]:
    asked = (KINDS[kind](views, suffix, random.Random(seed)) for seed in range(200))
    return {item for item in asked if item is not None}


def test_where_asks_for_each_clear_object_by_name() -> None:
    assert drawn("where", [CHAIR, LAMP, SPECK, *TWINS], " in the second image") == {
        ("Where is the red chair in the second image?", "[100, 200, 300, 600]"),
        ("Where is the blue lamp in the second image?", "[700, 100, 800, 300]"),
    }


def test_what_asks_about_a_box_near_the_true_one() -> None:
    asked = drawn("what", [CHAIR, LAMP])
    assert {answer for _, answer in asked} == {"red chair", "blue lamp"}
    assert len(asked) > 100
    for question, answer in asked:
        box = parse_box(re.fullmatch(r"What is in bbox (.*)\?", question)[1])
        assert iou(box, CHAIR.box if answer == "red chair" else LAMP.box) > 0.7


def test_a_jittered_box_stays_a_box() -> None:
    for box in [(0, 0, 1, 1), (999, 999, 1000, 1000), (0, 0, 1000, 1000)]:
        for question, _ in drawn("what", [seen("red", "chair", box)]):
            parse_box(question.removeprefix("What is in bbox ").removesuffix("?"))


def test_exists_is_asked_with_both_answers_and_its_no_is_near() -> None:
    asked = drawn("exists", [CHAIR, LAMP, SPECK, *TWINS])
    yes = {question for question, answer in asked if answer == "yes"}
    assert yes == {"Is there a red chair?", "Is there a blue lamp?"}
    no = {question for question, answer in asked if answer == "no"}
    assert no and all(re.fullmatch(r"Is there a ((red|blue) \w+|\w+ (chair|lamp))\?", question) for question in no)
    # Neither a speck nor a twin is denied.
    assert not no & {"Is there a green vase?", "Is there a white stool?"}


def test_left_of_compares_centres_and_leaves_out_the_unclear() -> None:
    assert drawn("left_of", [CHAIR, LAMP]) == {
        ("Is the red chair left of the blue lamp?", "yes"),
        ("Is the blue lamp left of the red chair?", "no"),
    }
    below = seen("blue", "lamp", (130, 700, 330, 900), 2)
    assert drawn("left_of", [CHAIR, below]) == set()
    assert drawn("left_of", [CHAIR]) == set()


def test_count_counts_a_category_in_all_colours() -> None:
    other = seen("green", "chair", (0, 0, 90, 90), 7)
    assert drawn("count", [CHAIR, LAMP, other]) == {
        ("How many chairs are there?", "2"),
        ("How many lamps are there?", "1"),
    }


def test_count_leaves_out_what_is_too_small_to_tell() -> None:
    tiny = seen("green", "chair", (0, 0, 9, 9), 7, area=0.002)
    assert drawn("count", [CHAIR, tiny]) == set()


@pytest.mark.parametrize(
    ("centre", "answer"), [(200, "left"), (379, "left"), (380, "middle"), (620, "middle"), (621, "right")]
)
def test_side_names_the_third(centre: int, answer: str) -> None:
    view = seen("red", "chair", (centre - 50, 0, centre + 50, 100))
    assert drawn("side", [view], " in the first image") == {
        ("Which side is the red chair on in the first image?", answer)
    }


def test_a_name_that_occurs_twice_is_never_asked_about() -> None:
    assert visible([*TWINS, CHAIR]) == [CHAIR]
    hidden_twin = seen("red", "chair", (900, 900, 905, 905), 9, area=0.0001)
    assert visible([CHAIR, hidden_twin]) == []
    for kind in KINDS:
        assert all("white stool" not in question for question, _ in drawn(kind, [*TWINS, CHAIR, LAMP]))


@pytest.mark.parametrize("views", [[], [SPECK], TWINS])
def test_nothing_is_asked_of_a_view_without_a_clear_object(views: list[ObjectView]) -> None:
    assert [ask(views, "", random.Random(seed)) for seed in range(50)] == [None] * 50


def is_true(question: str, answer: str, views: list[ObjectView]) -> bool:
    """Check an answer from the question's text alone, without `trainer.perception`."""
    names = {f"{view.colour} {view.category}": view for view in views}
    if match := re.fullmatch(r"Where is the (.*)\?", question):
        return parse_box(answer) == names[match[1]].box
    if match := re.fullmatch(r"What is in bbox (.*)\?", question):
        asked = parse_box(match[1])
        near = (abs(a - b) <= 8 for a, b in zip(asked.corners, names[answer].box.corners, strict=True))
        return all(near)
    if match := re.fullmatch(r"Is there a (.*)\?", question):
        return (match[1] in names) is (answer == "yes")
    if match := re.fullmatch(r"Is the (.*) left of the (.*)\?", question):
        centres = [names[name].box.x1 + names[name].box.x2 for name in match.groups()]
        return (centres[0] < centres[1]) is (answer == "yes")
    if match := re.fullmatch(r"How many (.*)s are there\?", question):
        return sum(view.category == match[1] for view in views) == int(answer)
    match = re.fullmatch(r"Which side is the (.*) on\?", question)
    centre = (names[match[1]].box.x1 + names[match[1]].box.x2) / 2
    return answer == ("left" if centre < 380 else "right" if centre > 620 else "middle")


@given(_objects, st.integers(0, 2**32))
def test_answers_are_true_and_say_nothing_about_motion(views: list[ObjectView], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(10):
        asked = ask(views, "", rng)
        if asked is None:
            continue
        assert is_true(asked.question, asked.answer, views), asked
        assert not MOTION.search(f"{asked.question} {asked.answer}")
        assert asked.ordinal is asked.question.startswith("Where")
        assert asked.weight > 0


def test_all_kinds_are_drawn_and_about_every_view() -> None:
    starts = {
        ask([CHAIR, LAMP], suffix, random.Random(seed)).question.split()[0]
        for seed in range(200)
        for suffix in SUFFIXES
    }
    assert starts == {"Where", "What", "Is", "How", "Which"}
    assert set(WEIGHTS) == set(KINDS)
    assert not any(MOTION.search(suffix) for suffix in SUFFIXES)


def test_questions_use_words_that_rooms_have_and_the_tokenizer_knows() -> None:
    assert set(scenes.CATEGORIES) <= set(CATEGORIES) <= set(CATEGORY_WORDS)
    assert set(scenes.COLOURS) <= set(COLOURS) <= set(COLOUR_WORDS)


def test_the_same_seed_asks_the_same() -> None:
    views = [CHAIR, LAMP, ObjectView(8, "sofa", "green", Box(300, 300, 600, 600), 0.2)]
    first, second = ([ask(views, "", rng) for _ in range(20)] for rng in (random.Random(5), random.Random(5)))
    assert first == second


def test_objects_of_a_detector_have_no_colour_and_are_asked_only_what_is_certain() -> None:
    """It may have missed others, so nobody says that there are none, or how many."""
    found = [seen("", "chair", (100, 200, 300, 600), 1), seen("", "lamp", (700, 100, 800, 300), 2)]
    assert {question for question, _ in drawn("where", found)} == {"Where is the chair?", "Where is the lamp?"}
    assert {answer for _, answer in drawn("what", found)} == {"chair", "lamp"}
    assert drawn("exists", found) == drawn("count", found) == set()
    assert all("  " not in question for kind in KINDS for question, _ in drawn(kind, found))
