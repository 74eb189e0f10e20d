"""Every number here was worked out by hand from the published reward's definition."""

import pytest

from world2vlm.errors import InvalidInputError
from world2vlm.rewards import reward
from world2vlm.tasks import TASKS

MOVE, TURN = "move forward 0.5 meters", "turn left 30 degrees"
BOX = "[100, 100, 300, 300]"


@pytest.mark.parametrize(
    ("task", "answer", "response", "overall"),
    [
        ("A1", MOVE, MOVE, 1.0),
        ("A1", MOVE, "Move  Forward 1 Meter.", 1.0),  # half a metre off is free
        ("A1", MOVE, "move backward 0.5 meters", 0.10),
        ("A1", MOVE, "move forward 3.25 meters", 0.10 + 0.35 + 0.55 * 0.5),
        ("A1", MOVE, "move forward -0.5 meters", 0.10 + 0.35 + 0.55 * 8 / 9),
        ("A1", MOVE, "move forward 9 meters", 0.45),
        ("A1", MOVE, "half a metre forward", 0.0),
        ("A1", "no motion", MOVE, 0.0),
        ("A2", TURN, "turn left 35 degrees", 1.0),
        ("A2", TURN, "turn left 77.5 degrees", 0.725),  # 47.5 off, halfway between 5 and 90
        ("A2", TURN, "turn left 120 degrees", 0.45),
        ("A2", TURN, "turn right 30 degrees; or turn left 30 degrees", 1.0),  # the best one counts
        ("A2", TURN, "turn left 77.5 degrees, move left 30 meters", 0.725),
    ],
)
def test_single_motions(task: str, answer: str, response: str, overall: float) -> None:
    assert reward(task, answer, response)["overall"] == pytest.approx(overall)


@pytest.mark.parametrize("task", ["A3", "D3"])
@pytest.mark.parametrize(
    ("response", "overall"),
    [
        (f"{MOVE}; {TURN}", 1.0),
        (f"{TURN}; {MOVE}", 0.10 + 0.25),
        (MOVE, 0.10 + 0.25 / 2 + 0.35 / 2 + 0.30 / 2),
        (f"{MOVE}; {TURN}; move left 1 meters", 0.10 + 0.25 * 2 / 3 + 0.35 + 0.30 - 0.03),
        (f"{MOVE}; turn left 77.5 degrees", 0.10 + 0.25 + 0.35 + 0.30 * 1.5 / 2),
        ("; ".join(["turn right 1 degrees"] * 6), 0.0),  # 0.10 for the format, minus 4 x 0.03, not below 0
        ("I do not know", 0.0),
    ],
)
def test_sequences(task: str, response: str, overall: float) -> None:
    assert reward(task, f"{MOVE}; {TURN}", response)["overall"] == pytest.approx(overall)


def test_a_sequences_parts() -> None:
    parts = reward("A3", f"{MOVE}; {TURN}", f"{MOVE}; turn right 30 degrees; {TURN}")
    assert parts == pytest.approx(
        {"overall": 0.10 + 0.25 * 2 / 3 + 0.35 / 2 + 0.30 / 2 - 0.03}
        | {"format": 1, "action": 2 / 3, "order": 0.5, "numeric": 0.5}
    )


@pytest.mark.parametrize("task", ["A4", "D2", "D4"])
@pytest.mark.parametrize(
    ("answer", "response", "overall"),
    [
        ("yes", "Yes.", 1.0),
        ("yes", "true", 1.0),
        ("yes", "no", 0.20),
        ("false", 'No!"', 1.0),
        ("no", "maybe", 0.0),
        ("no", "no, it does not", 0.0),
        ("perhaps", "yes", 0.0),
    ],
)
def test_binary_answers(task: str, answer: str, response: str, overall: float) -> None:
    assert reward(task, answer, response)["overall"] == pytest.approx(overall)


@pytest.mark.parametrize(
    ("answer", "response", "overall"),
    [
        (BOX, BOX, 1.0),
        (BOX, " bbox [100,100,300,300] ", 1.0),
        (BOX, f"It is at {BOX}", 0.20 * 0.4 + 0.15 + 0.65),
        (BOX, "on the left", 0.0),
        ("nowhere", BOX, 0.0),
        # IoU 1/3, centre 1 - 100/169.706, L1 1 - 50/180, size 1
        (BOX, "[200, 100, 400, 300]", 0.20 + 0.15 + 0.65 * (0.15 + 0.2 * 0.410744 + 0.2 * 0.722222 + 0.15)),
        # half as wide: IoU 1/2, centre 1 - 50/169.706, L1 1 - 25/180, size 1 - ln(2)/1.6
        (
            BOX,
            "[100, 100, 200, 300]",
            0.35 + 0.65 * (0.225 + 0.2 * 0.705372 + 0.2 * 0.861111 + 0.15 * (1 - 0.693147 / 1.6)),
        ),
        # corners in the wrong order: validity 0.3, the geometry itself is perfect
        (BOX, "[300, 300, 100, 100]", 0.20 + 0.15 * 0.3 + 0.65 * (0.3 + 0.7 * 0.3)),
        # 100 over the edge: mean overflow 25, validity 0.7 + 0.3 x 0.875
        ("[100, 100, 300, 1000]", "[100, 100, 300, 1100]", 0.20 + 0.15 * 0.9625 + 0.65 * (0.3 + 0.7 * 0.9625)),
    ],
)
def test_boxes(answer: str, response: str, overall: float) -> None:
    assert reward("D1", answer, response)["overall"] == pytest.approx(overall, abs=1e-6)


def test_a_boxs_parts() -> None:
    parts = reward("D1", BOX, "[200, 100, 400, 300]")
    assert parts == pytest.approx(
        {"overall": 0.692286, "format": 1, "validity": 1, "geometry": 0.526593}
        | {"iou": 1 / 3, "center": 0.410744, "size": 1, "l1": 0.722222},
        abs=1e-6,
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_response_of_over_200_characters_costs_a_point(task: str) -> None:
    assert reward(task, "yes", "y" * 201) == {"overall": -1.0, "format": 0.0}


def test_a_response_of_200_characters_is_read() -> None:
    response = MOVE + " " * 5 + "x" * (200 - len(MOVE) - 5)
    assert len(response) == 200
    assert reward("A1", MOVE, f"  {response}\n")["overall"] == 1.0


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        reward("Z9", "yes", "yes")
