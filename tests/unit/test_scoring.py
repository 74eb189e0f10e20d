import pytest

from world2vlm.errors import InvalidInputError
from world2vlm.scoring import score


@pytest.mark.parametrize(
    ("task", "answer", "response", "expected"),
    [
        ("A1", "move forward 0.5 meters", "move forward 0.5 meters", {"overall": 1, "parsed": 1, "direction": 1}),
        ("A1", "move forward 0.5 meters", "move forward 0.7 meters", {"overall": 1, "parsed": 1, "direction": 1}),
        ("A1", "move forward 0.5 meters", "move forward 0.71 meters", {"overall": 0, "parsed": 1, "direction": 1}),
        ("A1", "move forward 2 meters", "move forward 2.4 meters", {"overall": 1, "parsed": 1, "direction": 1}),
        ("A1", "move forward 2 meters", "move forward 2.41 meters", {"overall": 0, "parsed": 1, "direction": 1}),
        ("A1", "move forward 0.5 meters", "move left 0.5 meters", {"overall": 0, "parsed": 1, "direction": 0}),
        ("A1", "move forward 0.5 meters", "forward", {"overall": 0, "parsed": 0, "direction": 0}),
        ("A2", "turn left 30 degrees", "turn left 40 degrees", {"overall": 1, "parsed": 1, "direction": 1}),
        ("A2", "turn left 30 degrees", "turn left 41 degrees", {"overall": 0, "parsed": 1, "direction": 1}),
        ("A2", "turn left 30 degrees", "turn right 30 degrees", {"overall": 0, "parsed": 1, "direction": 0}),
        (
            "A3",
            "move forward 1 meters; turn left 30 degrees",
            "move forward 1 meters; turn left 60 degrees",
            {"overall": 0.5, "parsed": 1, "direction": 1},
        ),
        (
            "A3",
            "move forward 1 meters; turn left 30 degrees",
            "turn left 30 degrees; move forward 1 meters",
            {"overall": 0, "parsed": 1, "direction": 0},
        ),
        (
            "D3",
            "move forward 1 meters",
            "move forward 1 meters; move forward 1 meters",
            {"overall": 0.5, "parsed": 1, "direction": 0.5},
        ),
        ("A4", "true", "True.", {"overall": 1, "parsed": 1}),
        ("D2", "yes", "no", {"overall": 0, "parsed": 1}),
        ("D4", "no", "perhaps", {"overall": 0, "parsed": 0}),
        ("D1", "[0, 0, 100, 100]", "[50, 0, 150, 100]", {"overall": 1 / 3, "parsed": 1}),
        ("D1", "[0, 0, 100, 100]", "the bbox is [0, 0, 100, 100]", {"overall": 0, "parsed": 0}),
    ],
)
def test_by_hand(task: str, answer: str, response: str, expected: dict[str, float]) -> None:
    assert score(task, answer, response) == pytest.approx(expected)


def test_a_true_answer_that_is_none_is_an_error() -> None:
    with pytest.raises(InvalidInputError):
        score("A1", "forward", "move forward 1 meters")
    with pytest.raises(InvalidInputError):
        score("Z9", "yes", "yes")
