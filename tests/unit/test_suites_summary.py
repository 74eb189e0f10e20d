"""Means as each suite defines them, intervals that know groups, and the paired comparison."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.suites_kit import Knows, Says, choice, number
from trainer.evaluation import markdown
from trainer.suites import Answered, Blind, Order, SuiteItem, ask, compare, summarise
from trainer.suites.means import OVERALL, Means
from trainer.suites.report import answers, change_table, pictures_used, table, write
from trainer.suites.vsi_bench import DIRECTION, TASKS
from world2vlm.errors import InvalidInputError


def items_of(*types: str, groups: int = 1000) -> list[SuiteItem]:
    return [choice(index, category=name, group=f"g{index % groups}") for index, name in enumerate(types)]


def answered(items: Sequence[SuiteItem], right: Sequence[bool]) -> list[Answered]:
    known = {item.question: item.truth for item, good in zip(items, right, strict=True) if good}
    return ask(Knows(known, default="no idea"), items, Order.PUBLISHED)


def test_without_tasks_every_question_counts_alike() -> None:
    means = Means(items_of("a", "a", "a", "b"), {}, 0)
    assert means.means([1, 1, 1, 0]) == {"a": 1, "b": 0, OVERALL: 0.75}
    assert means.sizes == {"a": 3, "b": 1, OVERALL: 4}


def test_vsi_bench_is_the_mean_of_eight_tasks_and_direction_the_mean_of_three() -> None:
    # 40 easy questions right, one medium and one hard wrong: their sizes must not matter.
    types = [*(["object_rel_direction_easy"] * 40), "object_rel_direction_medium", "object_rel_direction_hard"]
    others = [name for name, task in TASKS.items() if task != DIRECTION]
    means = Means(items_of(*types, *others), TASKS, 0)
    values = [1.0] * 40 + [0.0, 0.0] + [0.5] * 7
    rows = means.means(values)
    assert rows[DIRECTION] == pytest.approx(1 / 3)
    assert rows[OVERALL] == pytest.approx((1 / 3 + 7 * 0.5) / 8)
    assert rows["object_rel_direction_easy"] == 1
    assert means.sizes[DIRECTION] == 42
    assert len(means.rows) == 10 + 1 + 1


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Answers about one scene agree: each scene has its own rate, drawn around 0.6.
    rng = np.random.default_rng(0)
    items = items_of(*(["a"] * 400), groups=40)
    covered = 0
    for seed in range(100):
        rates = rng.beta(6, 4, size=40)
        values = [float(rng.random() < rates[index % 40]) for index in range(400)]
        interval = Means(items, {}, seed).intervals(values)[OVERALL]
        covered += interval.low <= 0.6 <= interval.high
    assert 86 <= covered <= 100


def test_questions_of_one_group_count_as_one_draw() -> None:
    values = [float(index % 10 < 5) for index in range(500)]
    alone = Means(items_of(*(["a"] * 500)), {}, 0).intervals(values)[OVERALL]
    together = Means(items_of(*(["a"] * 500), groups=10), {}, 0).intervals(values)[OVERALL]
    assert together.high - together.low > 4 * (alone.high - alone.low)


def test_intervals_are_seeded() -> None:
    values = [index * index % 61 / 61 for index in range(60)]
    items = items_of(*(["a"] * 60))
    assert Means(items, {}, 1).intervals(values) == Means(items, {}, 1).intervals(values)
    assert Means(items, {}, 1).intervals(values) != Means(items, {}, 2).intervals(values)


def test_a_summary_of_known_answers() -> None:
    items = [choice(index, 0, ("left", "right", "up", "down")) for index in range(8)]
    items += [number(10.0, 8, question="How far?"), number(4.0, 9, question="How high?")]
    known = {item.question: "left" for item in items[:4]} | {"How far?": "9"}
    replies = ask(Knows(known, default="hm"), items, Order.PUBLISHED)
    rows = summarise(replies, ask(Says("B"), items, Order.PUBLISHED), {})
    assert rows["way"]["n"] == 8 and rows["way"]["score"] == rows["way"]["unparsed"] == 0.5
    assert rows["way"]["low"] < 0.5 < rows["way"]["high"]
    assert (rows["way"]["chance"], rows["way"]["frequent"], rows["way"]["blind"]) == (0.25, 1, 0)
    assert rows["way"]["skill"] == 0  # the file's answers are all "left": nothing to show
    assert rows["size"]["score"] == pytest.approx(0.45)
    assert rows[OVERALL]["score"] == pytest.approx((4 + 0.9) / 10)


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="no questions"):
        summarise([], [], {})


def test_a_paired_comparison_sees_what_two_intervals_would_hide() -> None:
    rng = random.Random(0)
    items = items_of(*(["a"] * 300))
    before = [rng.random() < 0.5 for _ in items]
    after = [good or rng.random() < 0.12 for good in before]
    change = compare(answered(items, before), answered(items, after), {})[OVERALL]
    assert change.value == pytest.approx(np.mean(after) - np.mean(before))
    assert change.low > 0 and change.p < 0.01
    rows = [summarise(replies, replies, {})[OVERALL] for replies in (answered(items, before), answered(items, after))]
    assert rows[0]["high"] > rows[1]["low"]  # unpaired, the two would overlap


def test_no_difference_is_not_significant() -> None:
    rng = random.Random(1)
    items = items_of(*(["a"] * 200))
    before, after = ([rng.random() < 0.5 for _ in items] for _ in range(2))
    change = compare(answered(items, before), answered(items, after), {})[OVERALL]
    assert change.low < 0 < change.high and change.p > 0.05
    same = compare(answered(items, before), answered(items, before), {})[OVERALL]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_the_test_rejects_as_often_as_it_says_when_groups_agree() -> None:
    # 20 groups of 10: whoever is better on a group is better on all of it, by a coin toss.
    rng = np.random.default_rng(0)
    items = items_of(*(["a"] * 200), groups=20)
    rejected = 0
    for seed in range(200):
        signs = rng.choice([-1.0, 1.0], 20)
        values = [signs[index % 20] for index in range(200)]
        rejected += Means(items, {}, seed).p_values(values)[OVERALL] < 0.05
    assert rejected <= 22


def test_only_the_same_questions_can_be_compared() -> None:
    items = items_of("a", "a")
    one = answered(items, [True, False])
    with pytest.raises(InvalidInputError, match="same questions"):
        compare(one[:1], one, {})
    with pytest.raises(InvalidInputError, match="same way"):
        compare(ask(Says("A"), items, Order.CIRCULAR), one, {})


def test_tables_charts_and_json_hold_every_row(tmp_path: Path) -> None:
    items = [choice(index, category="left & <right>") for index in range(6)]
    subject = Says("A")
    replies = ask(subject, items, Order.CIRCULAR)
    rows = summarise(replies, ask(Blind(subject), items, Order.CIRCULAR), {})
    shown = table(rows, Order.CIRCULAR)
    assert len({len(row) for row in shown}) == 1
    assert shown[0][4] == "mean over orders" and "mean over orders" not in table(rows, Order.SHUFFLED)[0]
    assert {"chance", "first", "frequent", "longest", "blind", "unparsed"} <= set(shown[0])
    changes = compare(replies, replies, {})
    read = {"suite": "sat", "repository": "array/SAT", "revision": "2ee12e1"}
    result = {**read, "version": 3, "order": "circular", "rows": rows, "answers": answers(replies)}
    write(tmp_path / "out/result.json", result, [shown, change_table(changes)])
    assert json.loads((tmp_path / "out/result.json").read_text()) == result
    text = (tmp_path / "out/result.md").read_text()
    assert markdown(shown) in text and "| p |" in text and "array/SAT at 2ee12e1" in text
    picture = ElementTree.fromstring((tmp_path / "out/result.svg").read_text())
    labels = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "left & <right>" in labels and OVERALL in labels
    bars = [element for element in picture.iter() if element.get("class") == "bar"]
    assert len(bars) == len(rows)


def test_the_result_says_which_questions_lost_pictures() -> None:
    assert pictures_used(ask(Says("A"), items_of("a"), Order.PUBLISHED), 2) == {"most": 2, "questions_cut": 0}
