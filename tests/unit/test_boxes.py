import pytest
from hypothesis import given
from hypothesis import strategies as st

from world2vlm.boxes import SCALE, Box, iou, parse_box
from world2vlm.errors import InvalidInputError

sides = st.lists(st.integers(0, SCALE), min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.builds(lambda x, y: Box(x[0], y[0], x[1], y[1]), sides, sides)


@given(boxes)
def test_a_box_reads_back_as_it_was(box: Box) -> None:
    assert parse_box(str(box)) == box


@given(boxes, boxes)
def test_iou_is_symmetric_and_between_0_and_1(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1
    assert (iou(a, b) == 1) == (a == b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Box(0, 0, 100, 100), Box(50, 0, 150, 100), 1 / 3),
        (Box(0, 0, 100, 100), Box(100, 0, 200, 100), 0),
        (Box(0, 0, 100, 100), Box(25, 25, 75, 75), 1 / 4),
    ],
)
def test_iou_by_hand(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)


@given(boxes)
def test_area_counts_the_cells(box: Box) -> None:
    assert box.area == len(range(box.x1, box.x2)) * len(range(box.y1, box.y2))


@pytest.mark.parametrize("corners", [(5, 0, 5, 9), (9, 0, 5, 9), (0, 9, 5, 9), (-1, 0, 5, 9), (0, 0, 5, 1001)])
def test_corners_are_in_order_and_range(corners: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidInputError):
        Box(*corners)
    with pytest.raises(InvalidInputError):
        parse_box(str(list(corners)))


@pytest.mark.parametrize(
    "text", ["", "1, 2, 3, 4", "[1, 2, 3]", "[1, 2, 3, 4, 5]", "[1.5, 2, 3, 4]", "at [1, 2, 3, 4]"]
)
def test_what_is_not_exactly_a_box_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_box(text)


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        (Box(10, 10, 990, 990), False),
        (Box(9, 10, 990, 990), True),
        (Box(10, 9, 990, 990), True),
        (Box(10, 10, 991, 990), True),
        (Box(10, 10, 990, 991), True),
    ],
)
def test_touching_an_edge(box: Box, touches: bool) -> None:
    assert box.touches_edge() is touches
