"""MRA against cases worked out by hand, choices, and the baselines' expected scores on data with known answers."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.suites_kit import Says, choice, number, said
from trainer.suites import Order, SuiteItem, ask
from trainer.suites.guessing import guess_scores as scores_of_guesses
from trainer.suites.scoring import THRESHOLDS, relative_accuracies, relative_accuracy, score_item


def guess_scores(items: Sequence[SuiteItem], order: Order = Order.PUBLISHED) -> dict[str, list[float]]:
    return {name: scores.tolist() for name, scores in scores_of_guesses(ask(Says("A"), items, order)).items()}


@pytest.mark.parametrize(
    ("given", "truth", "passed"),
    [
        (10, 10, 10),  # no error
        (10.4, 10, 10),  # 4% is within the 5% of .95
        (10.5, 10, 10),  # exactly 5%
        (10.6, 10, 9),  # 6%: all but .95
        (9, 10, 9),  # exactly 10%: .90 still passes
        (4, 5, 7),  # exactly 20%: .50 to .80
        (3, 4, 6),  # exactly 25%: .50 to .75
        (7, 10, 5),  # 30%
        (6.8, 10, 4),  # 32%
        (15, 10, 1),  # exactly 50%: .50 alone
        (5, 10, 1),
        (15.1, 10, 0),
        (1, 3, 0),  # two thirds off
        (0, 10, 0),
        (-10, 10, 0),
        (-9, -10, 9),  # an error is a share of the size, whatever the sign
        (0, 0, 10),
        (0.001, 0, 0),  # beside 0 no error is small
        (1e9, 1, 0),
    ],
)
def test_relative_accuracy_by_hand(given: float, truth: float, passed: int) -> None:
    assert relative_accuracy(given, truth) == pytest.approx(passed / 10)


def test_the_thresholds_are_the_benchmarks() -> None:
    assert pytest.approx([0.5 + 0.05 * step for step in range(10)]) == THRESHOLDS


def test_many_against_many_is_the_same_as_one_by_one() -> None:
    given, truths = np.array([0.0, 1.0, 2.5, 9.0]), np.array([0.0, 1.1, 10.0])
    expected = [[relative_accuracy(g, t) for t in truths.tolist()] for g in given.tolist()]
    assert relative_accuracies(given, truths).tolist() == expected


def test_a_choice_is_right_or_wrong() -> None:
    assert score_item(said(choice(answer=1), "B")).score == 1
    assert score_item(said(choice(answer=1), "right")).score == 1
    wrong = score_item(said(choice(answer=1), "A"))
    assert (wrong.score, wrong.parsed) == (0, 1)


def test_what_cannot_be_read_scores_0_and_is_counted_apart() -> None:
    for item in (choice(answer=1), number(3.0)):
        unread = score_item(said(item, "right? 3?"))
        assert (unread.score, unread.parsed) == (0, 0)


def test_a_choice_that_reads_like_the_right_one_is_right() -> None:
    item = choice(choices=("sofa", "Sofa", "bed"), answer=0)
    assert score_item(said(item, "B")).score == 1


def test_a_number_earns_its_relative_accuracy() -> None:
    assert score_item(said(number(10.0), "9 meters")).score == pytest.approx(0.9)


def test_guesses_at_choices() -> None:
    items = [
        choice(0, 0, ("left", "right")),
        choice(1, 0, ("left", "far right")),
        choice(2, 1, ("up", "left", "left of it")),
        choice(3, 0, ("up there", "down")),
    ]
    guesses = guess_scores(items)
    assert guesses["chance"] == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 2])
    assert guesses["first"] == [1, 1, 0, 1]
    assert guesses["frequent"] == [1, 1, 1, 0.5]  # "left"; where it is not on offer, a coin
    assert guesses["longest"] == [0, 0, 0, 1]


def test_who_takes_the_first_choice_is_scored_under_every_order() -> None:
    items = [choice(index, 0) for index in range(40)]
    assert guess_scores(items, Order.CIRCULAR)["first"] == [0] * 40
    assert 5 < sum(guess_scores(items, Order.SHUFFLED)["first"]) < 35
    assert guess_scores(items, Order.CIRCULAR)["listed_first"] == [1] * 40
    assert guess_scores(items, Order.CIRCULAR)["frequent"] == [1] * 40  # a text is found wherever it is


def test_the_longest_of_several_is_drawn() -> None:
    assert guess_scores([choice(choices=("on", "in", "a"))])["longest"] == [0.5]


def test_frequent_answers_belong_to_their_type() -> None:
    ways = [choice(index, 0, ("left", "right")) for index in range(3)]
    turns = [choice(index, 1, ("left", "right"), category="turn") for index in range(2)]
    assert guess_scores([*ways, *turns])["frequent"] == [1, 1, 1, 1, 1]


def test_guesses_at_numbers() -> None:
    items = [number(truth, index) for index, truth in enumerate((1.0, 1.0, 1.0, 2.0))]
    guesses = guess_scores(items)
    assert guesses["frequent"] == pytest.approx([1, 1, 1, 0.1])  # always 1: for 2 it is 50% off
    assert guesses["chance"] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0.1])  # of the three others
    assert guesses["first"] == guesses["longest"] == guesses["chance"]


def test_a_lone_number_leaves_nothing_to_guess_from() -> None:
    assert guess_scores([number(5.0)])["chance"] == [0]
