"""Orders of choices, and what circular evaluation shows about subjects with habits."""

from collections import Counter

import pytest

from tests.suites_kit import Knows, Says, choice, encoded, number
from trainer.suites import Answerer, Blind, Order, Query, ask, sample, summarise
from trainer.suites.answerers import GREY
from trainer.suites.asking import prompt
from trainer.suites.pictures import EncodedPictures
from world2vlm.errors import InvalidInputError

# As in the files that circulate: the right answer is always the first.
FIRST = [choice(index, 0, (f"right {index}", f"wrong {index}", f"worse {index}")) for index in range(60)]


def overall(subject: Answerer, order: Order) -> dict[str, float]:
    answered = ask(subject, FIRST, order)
    return summarise(answered, ask(Blind(subject), FIRST, order), {})["overall"]


def test_who_always_says_a_is_perfect_on_a_file_that_gives_its_answers_away() -> None:
    row = overall(Says("A"), Order.PUBLISHED)
    assert row["score"] == 1
    assert row["first"] == row["listed_first"] == 1  # and the table says so
    assert row["skill"] == 0


def test_a_shuffle_brings_who_always_says_a_down_to_chance() -> None:
    row = overall(Says("A"), Order.SHUFFLED)
    assert row["low"] < 1 / 3 < row["high"]
    assert row["first"] == row["score"] and row["listed_first"] == 1


def test_circular_evaluation_exposes_who_always_says_a() -> None:
    row = overall(Says("A"), Order.CIRCULAR)
    assert row["score"] == 0
    assert row["mean"] == pytest.approx(1 / 3)
    assert row["unparsed"] == row["first"] == 0
    assert row["skill"] < 0
    assert row["listed_first"] == 1  # the file is still told on


def test_who_knows_is_right_under_every_order() -> None:
    subject = Knows({item.question: item.truth for item in FIRST})
    for order in Order:
        row = overall(subject, order)
        assert (row["score"], row["mean"], row["unparsed"]) == (1, 1, 0)


def test_who_answers_nothing_is_counted_as_unparsed() -> None:
    row = overall(Knows({item.question: item.truth for item in FIRST[:15]}), Order.CIRCULAR)
    assert (row["score"], row["unparsed"]) == (0.25, 0.75)


def test_circular_evaluation_shows_each_choice_once_in_each_place() -> None:
    answered = ask(Says("A"), [choice(choices=("a", "b", "c", "d"))], Order.CIRCULAR)[0]
    orders = [reply.order for reply in answered.replies]
    assert len(orders) == 4
    for place in range(4):
        assert sorted(order[place] for order in orders) == [0, 1, 2, 3]
    # Neighbours stay neighbours: these are rotations.
    assert {(order[i] - order[i - 1]) % 4 for order in orders for i in range(1, 4)} <= {
        (orders[0][i] - orders[0][i - 1]) % 4 for i in range(4)
    }


def test_shuffles_are_seeded_and_a_questions_own() -> None:
    def orders(items: list[int], seed: int) -> list[tuple[int, ...]]:
        return [a.replies[0].order for a in ask(Says("A"), [FIRST[i] for i in items], Order.SHUFFLED, seed)]

    everything = orders(list(range(60)), 0)
    assert orders([7, 3], 0) == [everything[7], everything[3]]
    assert orders(list(range(60)), 1) != everything
    assert Counter(order[0] for order in everything).keys() == {0, 1, 2}


def test_the_prompt_shows_choices_in_their_order_with_letters() -> None:
    text = prompt(choice(choices=("left", "right")), (1, 0))
    assert text.splitlines() == ["Which way 0?", "A. right", "B. left", "Answer with the letter of one choice only."]
    assert prompt(number(3), ()).splitlines() == ["How long?", "Answer with one number only."]


def test_a_number_is_asked_for_once() -> None:
    assert len(ask(Says("3"), [number(3)], Order.CIRCULAR)[0].replies) == 1


def test_answers_come_in_the_order_of_the_questions_though_groups_are_asked_together() -> None:
    items = [choice(index, group=f"g{index % 2}") for index in range(40)]
    subject, done = Says("A"), list[int]()
    answered = ask(subject, items, Order.PUBLISHED, on_progress=done.append)
    assert [one.item for one in answered] == items
    assert [query.text.splitlines()[0] for query in subject.asked[:3]] == [f"Which way {i}?" for i in (0, 2, 4)]
    assert sum(done) == 40


def test_no_more_pictures_are_shown_than_the_answerer_takes() -> None:
    colours = [(10 * index, 0, 0) for index in range(5)]
    subject = Says("A")
    item = choice(pictures=EncodedPictures(tuple(map(encoded, colours))))
    answered = ask(subject, [item], Order.PUBLISHED)
    assert answered[0].images_used == 2
    assert [image.getpixel((0, 0)) for image in subject.asked[0].images] == [colours[0], colours[4]]


def test_the_blind_sees_grey_pictures_of_the_same_size() -> None:
    subject = Says("A")
    blind = Blind(subject)
    ask(blind, [choice()], Order.PUBLISHED)
    image = subject.asked[0].images[0]
    assert (image.size, image.getpixel((3, 3)), blind.max_images) == ((8, 6), GREY, 2)


def test_a_lost_response_is_refused() -> None:
    class Forgets(Says):
        def answer(self, queries: list[Query], max_new_tokens: int) -> list[str]:
            return super().answer(queries, max_new_tokens)[:-1]

    with pytest.raises(InvalidInputError, match="1 responses to 2 questions"):
        ask(Forgets("A"), FIRST[:2], Order.PUBLISHED)


def test_a_sample_is_seeded_keeps_the_order_and_is_not_the_first_ones() -> None:
    drawn = sample(FIRST, 10)
    assert len(drawn) == 10 and drawn == sample(FIRST, 10) != sample(FIRST, 10, seed=1)
    assert [int(item.id) for item in drawn] == sorted(int(item.id) for item in drawn)
    assert drawn != FIRST[:10]
    assert sample(FIRST, 0) == sample(FIRST, 100) == FIRST
