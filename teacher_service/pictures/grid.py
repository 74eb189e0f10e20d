"""Rows of captioned pictures on one canvas. Captions wrap: none is cut off, and none runs into its neighbour."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

BLACK, GREY, RED = "#1a1a1a", "#6b6b6b", "#c62828"
MIN_WIDTH = 180
"""Pixels of a cell under which captions would be all lines and no text."""

_FONT = 12
_LEADING = 16
_PAD = 4
_FRAME = 3

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Line:
    """A paragraph of a caption, and its colour."""

    text: str
    colour: str = BLACK


@dataclass(frozen=True)
class Cell:
    """A picture and what stands under it; a rejected one has a red frame."""

    picture: Image.Image
    caption: tuple[Line, ...]
    rejected: bool = False


@dataclass(frozen=True)
class Row:
    """What stands above a row of cells, and the cells."""

    heading: tuple[Line, ...]
    cells: tuple[Cell, ...]


def draw_grid(rows: Sequence[Row], width: int, columns: int) -> Image.Image:
    """Draw rows of cells under each other.

    Args:
        rows: what to draw; the cells' pictures are scaled to `width`.
        width: pixels of a cell.
        columns: cells of the widest row, and so the width that headings wrap at.

    Returns:
        RGB, `columns * width` pixels wide.
    """
    font = ImageFont.load_default(_FONT)
    blocks = [_draw_row(row, width, columns * width, font) for row in rows]
    canvas = Image.new("RGB", (columns * width, max(1, sum(block.height for block in blocks))), "white")
    top = 0
    for block in blocks:
        canvas.paste(block, (0, top))
        top += block.height
    return canvas


def _draw_row(row: Row, width: int, full: int, font: Font) -> Image.Image:
    heading = _wrap_all(row.heading, full - 2 * _PAD, font)
    captions = [_wrap_all(cell.caption, width - 2 * _PAD, font) for cell in row.cells]
    pictures = [_fit(cell.picture, width) for cell in row.cells]
    below = _height(heading) + max((picture.height for picture in pictures), default=0)
    block = Image.new("RGB", (full, below + max(map(_height, captions), default=0)), "white")
    pen = ImageDraw.Draw(block)
    _write(pen, (_PAD, 0), heading, font)
    for index, (cell, picture, caption) in enumerate(zip(row.cells, pictures, captions, strict=True)):
        left, top = index * width, _height(heading)
        block.paste(picture, (left, top))
        if cell.rejected:
            pen.rectangle((left, top, left + width - 1, top + picture.height - 1), outline=RED, width=_FRAME)
        _write(pen, (left + _PAD, below), caption, font)
    return block


def _fit(picture: Image.Image, width: int) -> Image.Image:
    if picture.width == width:
        return picture.convert("RGB")
    height = max(1, round(picture.height * width / picture.width))
    # Few pixels stay visible as pixels; many are averaged.
    how = Image.Resampling.NEAREST if picture.width < width else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((width, height), how)


def _wrap_all(lines: Iterable[Line], width: int, font: Font) -> list[Line]:
    return [Line(text, line.colour) for line in lines for text in wrap(line.text, width, font)]


def wrap(text: str, width: int, font: Font) -> list[str]:
    """Break a text into lines of at most `width` pixels, within words only where one alone is wider."""
    lines: list[str] = []
    for word in text.split():
        whole = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(whole) <= width:
            lines[-1] = whole
            continue
        while font.getlength(word) > width and len(word) > 1:
            cut = next((n for n in range(len(word) - 1, 1, -1) if font.getlength(word[:n]) <= width), 1)
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def _height(lines: Sequence[Line]) -> int:
    return len(lines) * _LEADING + 2 * _PAD if lines else 0


def _write(pen: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[Line], font: Font) -> None:
    left, top = corner
    for index, line in enumerate(lines):
        pen.text((left, top + _PAD + index * _LEADING), line.text, fill=line.colour, font=font)
