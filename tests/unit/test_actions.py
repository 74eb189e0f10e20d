import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.actions import (
    TRANSLATION_EPSILON_M,
    YAW_EPSILON_DEG,
    Action,
    Primitive,
    canonicalise,
    format_actions,
    invert,
    parse_actions,
    parse_short,
)
from world2vlm.cameras import integrate
from world2vlm.errors import InvalidInputError

FORWARD, LEFT = Primitive.FORWARD, Primitive.LEFT
TURN_LEFT = Primitive.TURN_LEFT

primitives = st.sampled_from(Primitive)
# What three decimals can say.
spoken = st.builds(Action, primitives, st.integers(1, 200_000).map(lambda n: n / 1000))
exact = st.builds(Action, primitives, st.floats(1e-6, 200, allow_nan=False))


@given(st.lists(spoken, min_size=1, max_size=6))
def test_the_long_form_reads_back_as_it_was(actions: list[Action]) -> None:
    assert parse_actions(format_actions(actions)) == actions


@given(st.lists(exact, min_size=1, max_size=6), st.sampled_from([" ", "; ", ",", "\n"]))
def test_the_short_form_reads_back_to_a_picometre(actions: list[Action], separator: str) -> None:
    read = parse_actions(separator.join(action.short for action in actions))
    assert [action.primitive for action in read] == [action.primitive for action in actions]
    assert [a.magnitude for a in read] == pytest.approx([a.magnitude for a in actions], abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("move forward 0.5 meters; turn left 30 degrees", [Action(FORWARD, 0.5), Action(TURN_LEFT, 30)]),
        ("Move  Forward .5 meter.", [Action(FORWARD, 0.5)]),
        ("turn right 1 degree;", [Action(Primitive.TURN_RIGHT, 1)]),
        ("fwd_0.5 tl_30", [Action(FORWARD, 0.5), Action(TURN_LEFT, 30)]),
        ("BACK_1; RIGHT_2, TR_3.5", [*map(parse_short, ("BACK_1", "RIGHT_2", "TR_3.5"))]),
    ],
)
def test_accepted_spellings(text: str, expected: list[Action]) -> None:
    assert parse_actions(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "jump",
        "move up 1 meters",
        "move forward 1 degrees",
        "turn forward 30 degrees",
        "move forward meters",
        "move forward 0 meters",
        "move forward -1 meters",
        "move forward nan meters",
        "turn left inf degrees",
        "move forward 1 meters and more",
        "move forward 1 meters;; turn left 3 degrees",
        "FWD_",
        "FWD_0",
        "FWD_nan",
        "FWD_1_0",
        "UP_1",
        "FWD_1 garbage",
    ],
)
def test_what_is_no_action_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_actions(text)


@pytest.mark.parametrize("magnitude", [0.0, -1.0, math.nan, math.inf])
def test_a_magnitude_is_finite_and_positive(magnitude: float) -> None:
    with pytest.raises(InvalidInputError):
        Action(FORWARD, magnitude)


@given(st.lists(exact, max_size=6))
def test_inverting_twice_changes_nothing(actions: list[Action]) -> None:
    assert invert(invert(actions)) == actions


@given(st.lists(exact, max_size=8))
def test_canonicalising_twice_is_canonicalising_once(actions: list[Action]) -> None:
    once = canonicalise(actions)
    assert canonicalise(once) == once


@given(st.lists(st.builds(Action, primitives, st.floats(1e-3, 3)), max_size=8))
def test_canonicalising_keeps_the_final_pose_to_the_thresholds(actions: list[Action]) -> None:
    before, after = integrate(actions)[-1], integrate(canonicalise(actions))[-1]
    walked = sum(action.magnitude for action in actions if not action.primitive.is_turn)
    turned = math.radians(YAW_EPSILON_DEG) * len(actions)
    # Each action dropped shifts by under 2 cm, or turns what follows by under a degree.
    assert np.linalg.norm(before[:3, 3] - after[:3, 3]) <= len(actions) * TRANSLATION_EPSILON_M + turned * walked + 1e-6
    cosine = np.clip((np.trace(before[:3, :3].T @ after[:3, :3]) - 1) / 2, -1, 1)
    assert np.arccos(cosine) <= turned + 1e-3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FWD_0.1 FWD_0.2", "FWD_0.3"),
        ("FWD_0.5 BACK_0.2", "FWD_0.3"),
        ("FWD_0.2 BACK_0.5", "BACK_0.3"),
        ("LEFT_1 RIGHT_1 TL_5", "TL_5"),
        ("TL_30 TR_30", ""),
        ("FWD_0.01 FWD_0.01", "FWD_0.02"),
        ("FWD_0.5 TL_0.5 FWD_0.5", "FWD_1"),
        ("FWD_0.5 LEFT_0.5 FWD_0.5", "FWD_0.5 LEFT_0.5 FWD_0.5"),
    ],
)
def test_canonical_forms(before: str, after: str) -> None:
    assert " ".join(action.short for action in canonicalise(parse_actions(before))) == after


def test_thirds_of_a_motion_add_up_to_it_after_a_trip_through_a_file() -> None:
    thirds = [Action(LEFT, 0.5 / 3)] * 3
    assert canonicalise(parse_short(third.short) for third in thirds) == [Action(LEFT, 0.5)]
