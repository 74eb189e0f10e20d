"""Evaluation: scores, intervals, cheating baselines on toy data with known answers, and the gate's refusals."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from trainer.evaluation import (
    BASELINES,
    MACRO,
    NEAREST,
    Scored,
    baseline_scores,
    evaluate,
    gate,
    markdown,
    paired_bootstrap,
    summarise,
    table,
)
from trainer.evaluation.agreement import agreement, best_constant
from trainer.evaluation.neighbours import Neighbours
from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.scoring import score
from world2vlm.tasks import Question

TURN = "turn left 30 degrees"
ALL = (*BASELINES, NEAREST)


def turn_record(degrees: int, scene: str = "s0") -> TaskRecord:
    answer = f"turn left {degrees} degrees"
    return TaskRecord.create("A2", Question("A2").text, answer, ["a.png", "b.png"], {"scene": scene})


def disappear_record(
    yes: bool, claim: str = TURN, thing: str = "chair", x: int = 0, scene: str = "s0", task: str = "D2"
) -> TaskRecord:
    box = Box(x, 0, x + 100, 100)
    question = Question(task, tuple(parse_actions(claim)), thing, box).text
    meta = {"scene": scene, "claim": claim, "object": thing, "box": list(box.corners)}
    return TaskRecord.create(task, question, "yes" if yes else "no", ["a.png"], meta)


def box_record(box: Box, answer: Box, claim: str = TURN, scene: str = "s0") -> TaskRecord:
    question = Question("D1", tuple(parse_actions(claim)), "chair", box).text
    meta = {"scene": scene, "claim": claim, "object": "chair", "box": list(box.corners)}
    return TaskRecord.create("D1", question, str(answer), ["a.png", "b.png"], meta)


def scored(task: str, overall: float, scene: str, number: int = 0) -> Scored:
    record = TaskRecord.create(task, f"question {number}", "yes", ["a.png"], {"scene": scene})
    return Scored(record, "yes", {"overall": overall, "parsed": 1.0})


def rows(task: str, values: Sequence[float], scenes: int = 20) -> list[Scored]:
    return [scored(task, value, f"s{i % scenes}", i) for i, value in enumerate(values)]


def test_evaluate_asks_in_batches_and_scores_each_response() -> None:
    records = [turn_record(30), turn_record(60), turn_record(20), disappear_record(True), disappear_record(False)]
    sizes, progress = [], []

    def student(batch: Sequence[TaskRecord]) -> list[str]:
        sizes.append(len(batch))
        return ["yes" if record.task_type == "D2" else "turn left 30 degrees" for record in batch]

    result = evaluate(student, records, batch=2, on_progress=lambda done, total: progress.append((done, total)))
    assert sizes == [2, 2, 1]
    assert progress == [(2, 5), (4, 5), (5, 5)]
    assert [item.overall for item in result] == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert [item.record for item in result] == records


def test_a_student_that_loses_a_response_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="1 responses to 2 questions"):
        evaluate(lambda batch: ["yes"], [turn_record(30), turn_record(60)])


def test_summary_of_known_scores() -> None:
    records = [turn_record(30, "s0"), turn_record(60, "s1"), turn_record(30, "s2"), turn_record(30, "s3")]
    replies = iter(["turn left 30 degrees", "turn left 10 degrees", "no idea", "turn right 30 degrees"])
    summary = summarise(
        evaluate(lambda batch: [next(replies) for _ in batch], records), {"A2": {"x": 0.2, "y": 0.1}}, 0
    )
    figures = summary["A2"]
    assert figures["n"] == 4
    assert figures["score"] == 0.25
    assert figures["unparsed"] == 0.25
    assert figures["direction"] == 0.5
    assert figures["skill"] == pytest.approx((0.25 - 0.2) / 0.8)
    assert figures["skill_low"] == pytest.approx((figures["low"] - 0.2) / 0.8)
    assert figures["low"] == 0.0 and 0.5 <= figures["high"] <= 1.0


def test_macro_is_the_mean_over_tasks_whatever_their_sizes() -> None:
    result = rows("A1", [1.0] * 30) + rows("D2", [0.5] * 3, scenes=3)
    summary = summarise(result, {"A1": {"constant": 0.0}, "D2": {"text": 0.5}}, 0)
    assert summary[MACRO]["score"] == 0.75
    assert summary[MACRO]["skill"] == 0.5
    assert (summary[MACRO]["skill_low"], summary[MACRO]["skill_high"]) == (0.5, 0.5)
    assert summary[MACRO]["n"] == 33


def test_a_perfect_baseline_leaves_no_skill_to_show() -> None:
    assert summarise(rows("D2", [1.0] * 4), {"D2": {"text": 1.0}}, 0)["D2"]["skill"] == 0.0


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="nothing"):
        summarise([], {}, 0)


def test_intervals_are_seeded() -> None:
    result = rows("A1", [i * i % 61 / 61 for i in range(60)])
    assert summarise(result, {}, 1) == summarise(result, {}, 1)
    assert summarise(result, {}, 1) != summarise(result, {}, 2)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Scores within a scene agree: each scene has its own rate, drawn around 0.6.
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        rates = rng.beta(6, 4, size=40)
        values = [scored("A1", float(rng.random() < rates[i % 40]), f"s{i % 40}", i) for i in range(400)]
        figures = summarise(values, {}, seed)["A1"]
        covered += figures["low"] <= 0.6 <= figures["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_records_of_one_scene_count_as_one_draw() -> None:
    alike = [scored("A1", float(scene % 2), f"s{scene}", i) for scene in range(10) for i in range(50)]
    alone = [scored("A1", float(i % 2), f"s{i}", i) for i in range(500)]
    wide, narrow = summarise(alike, {}, 0)["A1"], summarise(alone, {}, 0)["A1"]
    assert wide["high"] - wide["low"] > 4 * (narrow["high"] - narrow["low"])


def test_a_paired_difference_is_narrower_than_the_scores() -> None:
    rng = random.Random(0)
    before = [rng.random() for _ in range(200)]
    after = [min(1.0, value + 0.1) for value in before]
    change = paired_bootstrap(rows("A1", before), rows("A1", after), {"A1": {"constant": 0.5}}, 0)
    gain = np.mean(after) - np.mean(before)
    assert change.tasks["A1"].value == pytest.approx(gain)
    assert change.tasks["A1"].high - change.tasks["A1"].low < 0.03
    assert change.macro.value == pytest.approx(2 * gain)


def test_only_the_same_records_can_be_compared() -> None:
    with pytest.raises(InvalidInputError, match="same records"):
        paired_bootstrap(rows("A1", [1.0, 0.0]), rows("A1", [1.0]), {}, 0)


def test_text_baseline_reads_the_text_without_its_boxes() -> None:
    train = [disappear_record(True, thing="vase", x=x) for x in range(20)]
    train += [disappear_record(False, thing="rug", x=x) for x in range(25)]
    test = [disappear_record(True, thing="vase", x=500), disappear_record(False, thing="rug", x=700)]
    scores = baseline_scores(train, test, seed=0)["D2"]
    assert scores["constant"] == 0.5
    assert scores["text"] == 1.0
    assert scores["chance"] == 0.5


def test_text_baseline_backs_off_to_the_actions_and_then_to_the_task() -> None:
    left = [disappear_record(True, thing="vase", claim=TURN) for _ in range(8)]
    right = [disappear_record(False, thing="vase", claim="turn right 30 degrees") for _ in range(9)]
    unseen_thing = disappear_record(True, thing="lamp", claim=TURN)
    unseen_claim = disappear_record(False, thing="vase", claim="move forward 1 meters")
    assert baseline_scores([*left, *right], [unseen_thing], seed=0)["D2"]["text"] == 1.0
    assert baseline_scores([*left, *right], [unseen_claim], seed=0)["D2"]["text"] == 1.0


def test_constant_baseline_is_the_best_by_the_score_not_the_most_frequent() -> None:
    # 40 lies within 10 degrees of all but one answer; the most frequent answer is 10.
    train = [turn_record(degrees) for degrees in (10, 10, 10, 30, 30, 50, 50, 40)]
    assert best_constant("A2", [r.assistant for r in train], random.Random(0)) == "turn left 40 degrees"
    assert baseline_scores(train, [turn_record(45), turn_record(10)], seed=0)["A2"]["constant"] == 0.5


def test_chance_is_a_uniform_guess_among_the_answers_seen() -> None:
    train = [turn_record(degrees) for degrees in (10, 10, 10, 30, 50, 90)]
    assert baseline_scores(train, [turn_record(90)], seed=0)["A2"]["chance"] == 0.25


def test_copying_and_moving_boxes() -> None:
    def moved(x: int) -> TaskRecord:
        return box_record(Box(x, 100, x + 200, 300), Box(x + 100, 100, x + 300, 300))

    scores = baseline_scores([moved(x) for x in range(0, 600, 10)], [moved(205), moved(415)], 0, ALL)["D1"]
    assert scores["copy"] == pytest.approx(1 / 3)
    assert scores["nearest"] == 1.0
    assert scores["constant"] < 0.7


def test_nearest_reads_where_the_box_is() -> None:
    train = [disappear_record(x > 450, x=x) for x in range(0, 900, 5)]
    test = [disappear_record(True, x=702), disappear_record(False, x=102)]
    scores = baseline_scores(train, test, 0, ALL)["D2"]
    assert scores["nearest"] == 1.0
    assert scores["text"] == 0.5
    assert set(baseline_scores(train, test, 0)["D2"]) == {"chance", "constant", "text"}


def test_nearest_keeps_a_box_that_leaves_the_image_a_box() -> None:
    train = [box_record(Box(500, 0, 600, 100), Box(950, 0, 1000, 100)) for _ in range(5)]
    answer = Neighbours(train).answer(box_record(Box(700, 0, 999, 50), Box(0, 0, 1, 1)), random.Random(0))
    assert answer == "[999, 0, 1000, 50]"
    other_claim = box_record(Box(1, 1, 9, 9), Box(1, 1, 9, 9), claim="turn right 10 degrees")
    assert Neighbours(train).answer(other_claim, random.Random(0)) is None


def test_boxes_agree_as_the_scorer_says() -> None:
    rng = random.Random(0)
    boxes = [
        str(Box(x, y, x + rng.randint(1, 500), y + rng.randint(1, 500))) for x, y in [(rng.randint(0, 500),) * 2] * 9
    ]
    expected = [[score("D1", truth, other)["overall"] for other in boxes] for truth in boxes]
    assert np.allclose(agreement("D1", boxes, boxes), expected)


def test_a_task_without_training_records_has_no_baselines() -> None:
    with pytest.raises(InvalidInputError, match="A2"):
        baseline_scores([disappear_record(True)], [turn_record(30)], seed=0)


def test_baselines_are_seeded() -> None:
    rng = random.Random(1)
    boxes = [Box(x, 0, x + rng.randint(50, 300), 300) for x in rng.sample(range(700), 600)]
    train = [box_record(a, b) for a, b in zip(boxes, boxes[::-1], strict=True)]
    assert baseline_scores(train[:500], train[500:], 3) == baseline_scores(train[:500], train[500:], 3)


BETTER = [0.9] * 100
WORSE = [0.4] * 100
KNEW = {"grounding": 0.5, "naming": 0.8}


def test_the_gate_promotes_what_is_better_and_has_forgotten_little() -> None:
    decision = gate(rows("A1", WORSE), rows("A1", BETTER), {}, KNEW, {"grounding": 0.41, "naming": 0.53})
    assert decision.promote
    assert decision.reasons == []
    assert decision.difference.macro.value == pytest.approx(0.5)


def test_the_gate_refuses_a_gain_that_may_be_chance() -> None:
    before = [0.0] * 50 + [1.0] * 50
    after = [1.0] * 12 + [0.0] * 46 + [1.0] * 42  # 12 answers better, 8 worse
    decision = gate(rows("A1", before), rows("A1", after), {}, KNEW, KNEW)
    assert not decision.promote
    assert len(decision.reasons) == 1
    assert f"{decision.difference.macro.value:+.3f}" in decision.reasons[0]


def test_the_gate_names_the_task_that_fell() -> None:
    before = rows("A1", WORSE) + rows("D2", [0.8] * 100)
    after = rows("A1", BETTER) + rows("D2", [0.7] * 100)
    decision = gate(before, after, {}, KNEW, KNEW)
    assert not decision.promote
    assert decision.reasons == ["D2 fell by 0.100, more than 0.050"]
    assert gate(before, after, {}, KNEW, KNEW, max_task_loss=0.11).promote


@pytest.mark.parametrize("value", [0.39, float("nan")])
def test_the_gate_refuses_a_student_that_lost_its_grounding(value: float) -> None:
    decision = gate(rows("A1", WORSE), rows("A1", BETTER), {}, KNEW, {**KNEW, "grounding": value})
    assert not decision.promote
    assert decision.reasons == [f"grounding is {value:.3f}, under 0.400 (80% of before)"]


def test_the_gate_refuses_a_student_that_forgot_what_things_are_called() -> None:
    decision = gate(rows("A1", WORSE), rows("A1", BETTER), {}, KNEW, {**KNEW, "naming": 0.5})
    assert decision.reasons == ["naming is 0.500, under 0.520 (65% of before)"]


def test_the_gate_asks_for_enough_scenes_where_it_is_told_to() -> None:
    few = rows("A1", WORSE, scenes=2), rows("A1", BETTER, scenes=2)
    assert gate(*few, {}, KNEW, KNEW).promote
    decision = gate(*few, {}, KNEW, KNEW, min_scenes=5)
    assert not decision.promote
    assert decision.reasons == [
        "2 held-out place(s) are too few to be certain; 5 are needed: add photographs of more places"
    ]
    assert gate(rows("A1", WORSE, 5), rows("A1", BETTER, 5), {}, KNEW, KNEW, min_scenes=5).promote


def test_the_gate_says_why_held_out_places_gave_no_questions() -> None:
    few = rows("A1", WORSE, scenes=2), rows("A1", BETTER, scenes=2)
    asked = sorted({item.scene for item in few[0]})
    silent = {scene: "not said" for scene in asked} | {"gone": "every view of place07 was rejected"}
    decision = gate(*few, {}, KNEW, KNEW, min_scenes=5, silent=silent)
    assert decision.scenes == 2
    assert decision.reasons == [
        "2 of the 3 held-out places gave questions (every view of place07 was rejected); 5 are needed: add "
        "photographs of more places, and several of each"
    ]
    assert gate(*few, {}, KNEW, KNEW, min_scenes=2, silent=silent).promote


def test_one_place_has_no_interval_and_is_the_first_reason() -> None:
    one = rows("A1", BETTER, scenes=1), rows("A1", WORSE, scenes=1)
    reasons = gate(*one, {}, KNEW, KNEW, min_scenes=5).reasons
    assert reasons[0].startswith("1 held-out place(s) are too few")
    assert reasons[1] == "macro skill not higher: -0.500, on one place, which has no interval"
    before, after = (summarise(side, {}, 0) for side in one)
    assert all("to" not in cell for row in table(before, after, {}, scenes=1)[1:] for cell in row)


def test_a_probe_that_nothing_could_be_asked_for_checks_nothing() -> None:
    assert gate(rows("A1", WORSE), rows("A1", BETTER), {}, {}, {}).promote


def test_table_shows_scores_with_intervals_and_the_best_baseline() -> None:
    baselines = {"A1": {"chance": 0.1, "constant": 0.2}}
    before, after = (summarise(rows("A1", values), baselines, 0) for values in (WORSE, BETTER))
    shown = table(before, after, baselines)
    assert [row[0] for row in shown] == ["task", "A1", "macro"]
    assert shown[1][1:] == (
        "100",
        "0.200 constant",
        "0.400 (0.400 to 0.400)",
        "0.900 (0.900 to 0.900)",
        "0.25 (0.25 to 0.25)",
        "0.88 (0.88 to 0.88)",
    )
    lines = markdown(shown).splitlines()
    assert lines[1] == "| --- | --- | --- | --- | --- | --- | --- |"
    assert lines[2].startswith("| A1 | 100 | 0.200 constant |")
