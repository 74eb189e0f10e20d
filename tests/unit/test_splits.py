from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.errors import InvalidInputError
from world2vlm.splits import ENOUGH_TEST_SCENES, split_scenes, spread

NAMES = st.sets(st.text(min_size=1, max_size=6), min_size=3, max_size=60)
MANY = [f"room {index}" for index in range(400)]


@given(NAMES)
def test_every_split_has_a_scene_and_every_scene_a_split(names: set[str]) -> None:
    splits = split_scenes(names, {})
    assert list(splits) == sorted(names)
    counts = Counter(splits.values())
    assert counts["train"] >= 1 and counts["calibration"] >= 1
    assert counts["test"] >= min(ENOUGH_TEST_SCENES, max(1, len(names) // 4))


@given(NAMES, NAMES)
def test_no_scene_ever_changes_its_split_however_many_others_come(first: set[str], more: set[str]) -> None:
    before = split_scenes(first, {})
    after = split_scenes(first | more, before)
    assert {name: after[name] for name in first} == before


@given(NAMES, st.randoms())
def test_order_and_repetition_say_nothing(names: set[str], rng: object) -> None:
    shuffled = sorted(names)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_scenes([*shuffled, *shuffled], {}) == split_scenes(names, {})


def test_of_many_scenes_about_15_in_100_are_tested_on_and_10_calibrated_on() -> None:
    counts = Counter(split_scenes(MANY, {}).values())
    assert 0.11 < counts["test"] / 400 < 0.19 and 0.07 < counts["calibration"] / 400 < 0.13


def test_with_enough_scenes_a_split_is_a_function_of_the_name_alone() -> None:
    half, whole = split_scenes(MANY[::2], {}), split_scenes(MANY, {})
    assert half == {name: whole[name] for name in half}


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b", "b"]], ids=len)
def test_too_few_scenes_are_refused_with_the_remedy(names: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="one place into one sub-folder, and add other places"):
        split_scenes(names, {})


def test_what_was_trained_on_is_never_held_out() -> None:
    trained = dict.fromkeys("abcd", "train")
    with pytest.raises(InvalidInputError, match=r"no scene is left for the split test.*a new place"):
        split_scenes("abcd", trained)  # type: ignore[arg-type]
    splits = split_scenes("abcdef", trained)  # type: ignore[arg-type]
    assert all(splits[name] == "train" for name in "abcd") and {splits["e"], splits["f"]} == {"test", "calibration"}


def test_each_group_has_its_turn_before_any_has_its_second() -> None:
    groups = [["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]
    assert spread(groups, 4) == ["a1", "b1", "c1", "a2"]
    assert spread(groups, 99) == ["a1", "b1", "c1", "a2", "c2", "a3"]
