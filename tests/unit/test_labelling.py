"""Labelling: what is asked about hand-made bundles, and what survives balancing, splitting and selecting."""

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.labelling import MIN_AREA, balance, label, select_test, transitions
from trainer.labelling.claims import false_claim, is_clearly_different
from world2vlm.actions import Action, canonicalise, format_actions, parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Bundle, Frame, ObjectView, read_bundle, write_bundle
from world2vlm.cameras import integrate, intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, Question, parse_answer

BIG = 0.05
FEW_PIXELS = MIN_AREA / 10


def view(instance: int, category: str, x: int, area: float = BIG, size: int = 200) -> ObjectView:
    return ObjectView(instance, category, "red", Box(x, 300, x + size, 300 + size), area)


def bundle(steps: Iterable[tuple[str, bool, list[ObjectView]]], scene: str = "room", trajectory: str = "0") -> Bundle:
    """A bundle from (actions since the frame before, key frame?, objects in view) by frame."""
    frames: list[Frame] = []
    for index, (text, key, objects) in enumerate(steps):
        actions = tuple(parse_actions(text)) if text else ()
        pose = integrate(actions, frames[-1].c2w if frames else np.eye(4))[-1]
        k = intrinsics_from_fov(90, 128, 128)
        path = f"frames/{index:03d}.png"
        frames.append(Frame(b"", pose, k, (128, 128), actions, key, tuple(objects), path=path))
    return Bundle(scene, trajectory, tuple(frames))


def walk(*actions: str, scene: str = "room", trajectory: str = "0") -> Bundle:
    """A bundle of key frames without objects."""
    return bundle([("", True, []), *((action, True, []) for action in actions)], scene, trajectory)


# Two chairs and a table; one step forward in two frames, then a turn after which only chair 1 is left.
CHAIRS = bundle(
    [
        ("", True, [view(1, "chair", 100), view(2, "chair", 600), view(3, "table", 400)]),
        ("FWD_0.2", False, []),
        ("FWD_0.3", True, [view(1, "chair", 50), view(2, "chair", 700), view(3, "table", 410, FEW_PIXELS)]),
        ("TL_30", True, [view(1, "chair", 500)]),
    ]
)


def asked(bundles: Iterable[Bundle], task: str, frames: tuple[int, int]) -> set[tuple[str, str]]:
    """All (question, answer) of a task about a pair of frames, over many seeds."""
    return {
        (record.question, record.assistant)
        for item in bundles
        for seed in range(60)
        for record in label(item, seed)
        if record.task_type == task and record.meta["frames"] == list(frames)
    }


def qa(answer: str, task: str, **fields: object) -> tuple[str, str]:
    return Question(task, **fields).text, answer  # type: ignore[arg-type]


FORWARD = (parse_actions("FWD_0.5")[0],)
LEFT_BOX, RIGHT_BOX = Box(100, 300, 300, 500), Box(600, 300, 800, 500)


def test_transitions_are_all_pairs_and_their_reverses() -> None:
    found = {t.frames: format_actions(t.actions) for t in transitions(CHAIRS)}
    assert found == {
        (0, 2): "move forward 0.5 meters",
        (2, 0): "move backward 0.5 meters",
        (2, 3): "turn left 30 degrees",
        (3, 2): "turn right 30 degrees",
        (0, 3): "move forward 0.5 meters; turn left 30 degrees",
        (3, 0): "turn right 30 degrees; move backward 0.5 meters",
    }


def test_a_transition_knows_its_images_and_objects() -> None:
    back = next(t for t in transitions(CHAIRS) if t.frames == (3, 0))
    assert back.images == ("scenes/room/traj_0/frames/003.png", "scenes/room/traj_0/frames/000.png")
    assert [v.instance_id for v in back.before] == [1]
    assert set(back.seen_after) == {1, 2, 3}


def test_pairs_without_motion_or_with_more_than_three_actions_are_no_transitions() -> None:
    there_and_back = walk("TL_30", "TR_30")
    assert {t.frames for t in transitions(there_and_back)} == {(0, 1), (1, 0), (1, 2), (2, 1)}
    long = walk("FWD_0.5", "TL_30", "FWD_0.4", "TR_20")
    assert (0, 3) in {t.frames for t in transitions(long)}
    assert (0, 4) not in {t.frames for t in transitions(long)}


action_texts = st.builds(
    lambda name, tenths: f"{name}_{tenths if name in ('TL', 'TR') else tenths / 10}",
    st.sampled_from(["FWD", "BACK", "LEFT", "RIGHT", "TL", "TR"]),
    st.integers(3, 60),
)


@given(st.lists(action_texts, min_size=1, max_size=5))
def test_actions_of_every_transition_lead_from_its_first_pose_to_its_second(texts: list[str]) -> None:
    made = walk(*texts)
    for t in transitions(made):
        first, second = (made.frames[index].c2w for index in t.frames)
        assert np.allclose(integrate(t.actions, first)[-1], second, atol=1e-6)


def test_bundles_never_written_are_refused() -> None:
    pathless = Bundle(
        "room", "0", tuple(Frame(b"", f.c2w, f.intrinsics, f.size, f.actions_step) for f in CHAIRS.frames)
    )
    with pytest.raises(InvalidInputError, match="no path"):
        transitions(pathless)


def test_inverse_tasks_ask_for_what_the_camera_did() -> None:
    assert asked([CHAIRS], "A1", (0, 2)) == {qa("move forward 0.5 meters", "A1")}
    assert asked([CHAIRS], "A1", (2, 3)) == set()
    assert asked([CHAIRS], "A2", (3, 2)) == {qa("turn right 30 degrees", "A2")}
    assert asked([CHAIRS], "A2", (0, 2)) == set()
    assert asked([CHAIRS], "A3", (0, 3)) == {qa("move forward 0.5 meters; turn left 30 degrees", "A3")}
    assert asked([CHAIRS], "A3", (0, 2)) == set()


def test_claims_are_true_once_and_false_once() -> None:
    pairs = asked([CHAIRS], "A4", (0, 2))
    assert qa("true", "A4", actions=FORWARD) in pairs
    false = {question for question, answer in pairs if answer == "false"}
    wrong = ("move backward 0.5 meters", "turn left 30 degrees", "turn right 30 degrees")
    assert false == {Question("A4", actions=tuple(parse_actions(text))).text for text in wrong}
    for seed in range(10):
        answers = [r.assistant for r in label(CHAIRS, seed) if r.task_type == "A4" and r.meta["frames"] == [0, 2]]
        assert sorted(answers) == ["false", "true"]


def test_boxes_are_asked_where_the_object_is_clear_in_both_frames() -> None:
    assert asked([CHAIRS], "D1", (0, 2)) == {
        qa("[50, 300, 250, 500]", "D1", actions=FORWARD, object="chair", box=LEFT_BOX),
        qa("[700, 300, 900, 500]", "D1", actions=FORWARD, object="chair", box=RIGHT_BOX),
    }


def test_disappearing_means_that_no_pixel_is_left_and_a_few_pixels_are_not_asked_about() -> None:
    assert asked([CHAIRS], "D2", (0, 2)) == {
        qa("no", "D2", actions=FORWARD, object="chair", box=LEFT_BOX),
        qa("no", "D2", actions=FORWARD, object="chair", box=RIGHT_BOX),
    }
    left = tuple(parse_actions("TL_30"))
    assert asked([CHAIRS], "D2", (2, 3)) == {
        qa("no", "D2", actions=left, object="chair", box=Box(50, 300, 250, 500)),
        qa("yes", "D2", actions=left, object="chair", box=Box(700, 300, 900, 500)),
    }


def test_disappearing_is_asked_about_one_image() -> None:
    record = next(r for r in label(CHAIRS, 0) if r.task_type == "D2")
    assert record.user.count("<image>") == len(record.images) == 1


def test_sequences_by_object_name_one_object_in_both_frames() -> None:
    both = tuple(parse_actions("FWD_0.5;TL_30"))
    boxes = {"object": "chair", "box": LEFT_BOX, "second_box": Box(500, 300, 700, 500)}
    assert asked([CHAIRS], "D3", (0, 3)) == {qa(format_actions(both), "D3", **boxes)}
    assert len(asked([CHAIRS], "D3", (0, 2))) == 2


def test_another_instance_of_the_category_is_the_negative_of_identity() -> None:
    def identity(answer: str, box: Box, second: Box) -> tuple[str, str]:
        return qa(answer, "D4", actions=FORWARD, object="chair", box=box, second_box=second)

    left_after, right_after = Box(50, 300, 250, 500), Box(700, 300, 900, 500)
    assert asked([CHAIRS], "D4", (0, 2)) == {
        identity("yes", LEFT_BOX, left_after),
        identity("yes", RIGHT_BOX, right_after),
        identity("no", LEFT_BOX, right_after),
        identity("no", RIGHT_BOX, left_after),
    }


def test_objects_that_fill_the_image_or_hardly_show_are_not_asked_about() -> None:
    wall = ObjectView(1, "wardrobe", "red", Box(0, 0, 800, 800), 0.6)
    speck = view(2, "vase", 500, area=MIN_AREA * 0.9)
    still = bundle([("", True, [wall, speck]), ("FWD_0.5", True, [wall, speck])])
    assert {r.task_type for seed in range(20) for r in label(still, seed)} == {"A1", "A4"}


def test_records_per_transition_are_limited() -> None:
    crowd = [view(i, "chair", 30 * i) for i in range(1, 20)]
    crowded = bundle([("", True, crowd), ("FWD_0.5", True, crowd)])
    counts = Counter((r.task_type, *r.meta["frames"]) for r in label(crowded, 3))
    assert max(counts.values()) == 2


def test_labels_depend_on_the_bundle_and_the_seed_only() -> None:
    many = [view(i, "chair", 40 * i) for i in range(1, 15)]
    made = bundle([("", True, many), ("FWD_0.5", True, many), ("TL_20", True, many)])
    other = Bundle("room", "1", made.frames)
    assert label(made, 7) == label(made, 7)
    chosen = {seed: [r.user for r in label(made, seed)] for seed in (7, 8)}
    assert chosen[7] != chosen[8]
    assert chosen[7] != [r.user for r in label(other, 7)]


def test_labels_survive_the_disk(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, CHAIRS)
    assert label(read_bundle(folder), 5) == label(CHAIRS, 5)
    assert all((tmp_path / t.images[0]).is_file() for t in transitions(CHAIRS))


def test_every_answer_parses_and_every_record_says_where_it_is_from() -> None:
    records = [r for seed in range(20) for r in label(CHAIRS, seed)]
    assert {r.task_type for r in records} == set(TASKS)
    for record in records:
        parse_answer(record.task_type, record.assistant)
        assert {"scene", "trajectory", "frames", "actions"} <= set(record.meta)
        assert TaskRecord.from_json(record.to_json()) == record


def clear_difference_cases() -> list[tuple[str, str, bool]]:
    return [
        ("FWD_0.5", "BACK_0.5", True),
        ("FWD_0.5", "TL_5", True),
        ("FWD_0.4", "FWD_0.8", True),
        ("FWD_0.2", "FWD_0.4", False),  # half, but only 0.2 m apart
        ("FWD_1.2", "FWD_0.8", False),  # 0.4 m apart, but two thirds
        ("TR_20", "TR_40", True),
        ("TR_40", "TR_60", False),
        ("TL_10", "TL_20", False),
    ]


@pytest.mark.parametrize(("a", "b", "different"), clear_difference_cases())
def test_what_counts_as_clearly_different(a: str, b: str, different: bool) -> None:
    first, second = parse_actions(a)[0], parse_actions(b)[0]
    assert is_clearly_different(first, second) is is_clearly_different(second, first) is different


@given(st.lists(action_texts, min_size=1, max_size=3), st.lists(action_texts, max_size=6), st.integers())
def test_false_claims_are_false_canonical_and_one_action_off(texts: list[str], pool: list[str], seed: int) -> None:
    actions = canonicalise(parse_actions(" ".join(texts)))
    if not actions:
        return
    others: list[Action] = [parse_actions(text)[0] for text in pool]
    claim = false_claim(actions, others, random.Random(seed))
    changed = [(a, b) for a, b in zip(actions, claim, strict=True) if a != b]
    assert len(changed) == 1 and is_clearly_different(*changed[0])
    assert canonicalise(claim) == list(claim)
    assert not np.allclose(integrate(claim)[-1], integrate(actions)[-1])


def test_half_of_the_false_claims_go_the_opposite_way() -> None:
    pool = parse_actions("FWD_1.2 TL_30 TR_30 BACK_1.2")
    claims = [false_claim(FORWARD, pool, random.Random(seed)) for seed in range(400)]
    opposite = sum(claim == (Action(FORWARD[0].primitive.opposite, 0.5),) for claim in claims)
    assert 160 < opposite < 240
    assert (pool[0],) in claims


def binary(task: str, claim: str, yes: bool, place: int = 0, x: int = 0, scene: str = "s0") -> TaskRecord:
    words = ("true", "false") if task == "A4" else ("yes", "no")
    meta = {"scene": scene, "trajectory": str(place), "frames": [0, 1], "claim": claim, "box": [x, 0, x + 10, 10]}
    return TaskRecord.create(task, f"{claim}?", words[0] if yes else words[1], ["a.png"], meta)


def answers_by_text(records: Iterable[TaskRecord]) -> dict[tuple[str, str], Counter[bool]]:
    counts: dict[tuple[str, str], Counter[bool]] = {}
    for record in records:
        if record.task_type in ("A4", "D2", "D4"):
            key = (record.task_type, record.meta["claim"])
            counts.setdefault(key, Counter())[record.assistant in ("yes", "true")] += 1
    return counts


binaries = st.lists(
    st.builds(
        binary,
        st.sampled_from(["A4", "D2", "D4"]),
        st.sampled_from(["turn left 10 degrees", "turn left 20 degrees", "move forward 1 meters"]),
        st.booleans(),
        st.integers(0, 10**6),
        st.integers(0, 990),
        st.sampled_from([f"s{i}" for i in range(6)]),
    ),
    max_size=60,
    unique_by=lambda record: record.meta["trajectory"],
)


@given(binaries, st.integers(), st.randoms(use_true_random=False))
def test_balance_leaves_as_many_yes_as_no_for_each_action_text(
    records: list[TaskRecord], seed: int, shuffler: random.Random
) -> None:
    balanced = balance(records, seed)
    before, after = answers_by_text(records), answers_by_text(balanced)
    for key, counts in before.items():
        expected = min(counts[True], counts[False])
        assert after.get(key, Counter()) == Counter({True: expected, False: expected})
    shuffled = shuffler.sample(records, len(records))
    assert sorted(map(repr, balance(shuffled, seed))) == sorted(map(repr, balanced))


@given(binaries, st.integers(0, 30), st.integers(0, 5))
def test_a_selection_from_a_balanced_set_is_balanced(records: list[TaskRecord], per_task: int, seed: int) -> None:
    selected = select_test(balance(records, seed), per_task, seed)
    assert all(counts[True] == counts[False] for counts in answers_by_text(selected).values())
    assert all(count <= per_task for count in Counter(r.task_type for r in selected).values())


def test_balance_keeps_all_records_of_other_tasks_in_order() -> None:
    records = [r for r in label(CHAIRS, 0) if r.task_type in ("A1", "A2", "A3", "D1", "D3")]
    assert balance(records, 1) == records


def test_balance_prefers_boxes_where_the_rarer_answer_has_them() -> None:
    rare = [binary("D2", "turn left 10 degrees", True, i, x=900) for i in range(5)]
    far = [binary("D2", "turn left 10 degrees", False, 100 + i, x=10) for i in range(50)]
    near = [binary("D2", "turn left 10 degrees", False, 200 + i, x=800) for i in range(4)]
    kept = balance([*rare, *far, *near], 0)
    assert len(kept) == 10 and all(record in kept for record in [*rare, *near])


def test_a_selection_spreads_over_scenes_and_does_not_depend_on_order() -> None:
    records = [
        TaskRecord.create(
            "A1", "?", "move forward 1 meters", ["a"], {"scene": s, "trajectory": str(i), "frames": [0, 1]}
        )
        for s, count in (("big", 50), ("small", 3), ("tiny", 1))
        for i in range(count)
    ]
    selected = select_test(records, 9, seed=0)
    assert Counter(r.meta["scene"] for r in selected) == {"big": 5, "small": 3, "tiny": 1}
    assert select_test(records[::-1], 9, seed=0) == selected
