"""All frames of one trajectory in one picture."""

import io
from collections.abc import Sequence

from PIL import Image

from teacher_service.pictures.figures import say_failed, say_passed, say_scores
from teacher_service.pictures.grid import GREY, MIN_WIDTH, RED, Cell, Line, Row, draw_grid
from world2vlm.actions import format_actions
from world2vlm.bundles import Frame

ANCHOR = "the anchor"

# Up to so many frames are shown at their own size, so many in a row; more are shown small.
_FEW, _COLUMNS, _SMALL_COLUMNS = 16, 4, 8


def draw_strip(frames: Sequence[Frame]) -> Image.Image:
    """Draw all frames, each over what the camera did and what the gates say; those that failed in red."""
    few = len(frames) <= _FEW
    width = max(MIN_WIDTH, frames[0].size[0]) if few else MIN_WIDTH
    columns = min(_COLUMNS if few else _SMALL_COLUMNS, len(frames))
    cells = [
        to_cell(frame, Image.open(io.BytesIO(frame.png)), format_actions(frame.actions_step) if index else ANCHOR)
        for index, frame in enumerate(frames)
    ]
    rows = [Row((), tuple(cells[start : start + columns])) for start in range(0, len(cells), columns)]
    return draw_grid(rows, width, columns)


def to_cell(frame: Frame, picture: Image.Image, did: str) -> Cell:
    """A frame's picture over what the camera did to get there and what the frame's figures are."""
    failed = say_failed(frame)
    lines = (
        Line(did),
        Line(say_scores(frame), GREY),
        Line(say_passed(frame), GREY),
        Line(failed, RED),
    )
    return Cell(picture, tuple(line for line in lines if line.text), bool(failed))
