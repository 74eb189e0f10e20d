import pytest

from trainer.suites.parsing import parse_choice, parse_number

SHOWN = ("turn left", "turn right", "stay")


@pytest.mark.parametrize(
    ("response", "place"),
    [
        ("A", 0),
        ("b", 1),
        (" C. ", 2),
        ("(B)", 1),
        ("(b).", 1),
        ("B)", 1),
        ("A:", 0),
        ("B. turn right", 1),
        ("(B) Turn  right.", 1),
        ("C stay", 2),
        ("turn left", 0),
        ("Turn Left.", 0),
    ],
)
def test_exactly_one_answer_is_read(response: str, place: int) -> None:
    assert parse_choice(response, SHOWN) == place


@pytest.mark.parametrize(
    "response",
    [
        "",
        "D",
        "AB",
        "A or B",
        "A, B",
        "A. turn right",  # letter and text disagree
        "The answer is A",
        "I would turn left",
        "turn left or turn right",
        "turn",
        "not turn left",
        "reasoning...\nA",
        "left",
    ],
)
def test_anything_else_is_no_answer(response: str) -> None:
    assert parse_choice(response, SHOWN) is None


def test_what_may_mean_two_choices_is_no_answer() -> None:
    assert parse_choice("B", ("B", "A")) is None  # the letter of one and the text of the other
    assert parse_choice("A", ("A", "B")) == 0
    assert parse_choice("same", ("same", "same")) is None
    assert parse_choice("a bed", ("a bed", "bed")) == 0


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("3", 3.0),
        ("2.50", 2.5),
        (" 4. ", 4.0),
        ("-1", -1.0),
        ("+.5", 0.5),
        ("3 meters", 3.0),
        ("12 m²", 12.0),
        ("180 cm", 180.0),
        ("20 square meters.", 20.0),
        ("4m", 4.0),
    ],
)
def test_numbers(response: str, value: float) -> None:
    assert parse_number(response) == value


@pytest.mark.parametrize(
    "response", ["", "three", "about 3", "3 to 4", "1,200", "3 4", "1e3", "nan", "inf", "3 bananas", "1.2.3", "-", "."]
)
def test_no_numbers(response: str) -> None:
    assert parse_number(response) is None
