"""Boxes `[x1, y1, x2, y2]` in thousandths of the image (integers 0-1000), Qwen's and World2VLM's order."""

import re
from dataclasses import dataclass

from world2vlm.errors import InvalidInputError

SCALE = 1000
_BOX = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")


@dataclass(frozen=True)
class Box:
    """Corners with 0 <= x1 < x2 <= 1000 and 0 <= y1 < y2 <= 1000."""

    x1: int
    y1: int
    x2: int
    y2: int

    def __post_init__(self) -> None:
        if not (0 <= self.x1 < self.x2 <= SCALE and 0 <= self.y1 < self.y2 <= SCALE):
            raise InvalidInputError(f"a box needs 0 <= x1 < x2 <= {SCALE} and y likewise, not {self.corners}")

    def __str__(self) -> str:
        return "[" + ", ".join(map(str, self.corners)) + "]"

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    @property
    def area(self) -> int:
        """Width times height, in thousandths squared."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def touches_edge(self, margin: int = 10) -> bool:
        """Whether a side lies within `margin` thousandths of the image's border."""
        return min(self.x1, self.y1) < margin or max(self.x2, self.y2) > SCALE - margin


def parse_box(text: str) -> Box:
    """Parse exactly one box such as `[10, 20, 300, 400]`, and nothing else.

    Raises:
        InvalidInputError: anything else, or corners out of order or range.
    """
    match = _BOX.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(f"not a box: {text!r}; use [x1, y1, x2, y2] with integers 0-{SCALE}")
    x1, y1, x2, y2 = map(int, match.groups())
    return Box(x1, y1, x2, y2)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    width = max(0, min(a.x2, b.x2) - max(a.x1, b.x1))
    height = max(0, min(a.y2, b.y2) - max(a.y1, b.y1))
    intersection = width * height
    return intersection / (a.area + b.area - intersection)
