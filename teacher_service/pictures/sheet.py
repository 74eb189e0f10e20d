"""The contact sheet: many trajectories under each other, those that a gate rejected in red with the reason."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from teacher_service.pictures.figures import say_rejected
from teacher_service.pictures.grid import GREY, MIN_WIDTH, RED, Cell, Line, Row, draw_grid
from teacher_service.pictures.strip import ANCHOR, to_cell
from world2vlm.actions import format_actions
from world2vlm.bundles import Bundle, Frame, find_bundles, read_bundle
from world2vlm.errors import DataCorruptedError, InvalidInputError

MAX_ROWS = 40
_MAX_COLUMNS = 8
# Of the rejected trajectories of which no frame was kept.
_NOTHING = (MIN_WIDTH, 48)


def draw_sheet(folders: Sequence[Path], rows: int = MAX_ROWS) -> Image.Image:
    """Draw the bundles under some folders: a row each, a key frame in each column.

    Args:
        folders: what is under them is drawn, whether it was rejected or not.
        rows: bundles at most; the sheet says how many are left out.

    Raises:
        InvalidInputError: there is no bundle.
        DataCorruptedError: a bundle is broken, or an image of it; the text names it.
    """
    found = [path for folder in folders for path in find_bundles(folder)]
    if not found:
        raise InvalidInputError(f"no bundles in {', '.join(map(str, folders))}")
    drawn = [_row(path, read_bundle(path)) for path in found[:rows]]
    if len(found) > rows:
        drawn.append(Row((Line(f"{len(found) - rows} more trajectories are not shown", GREY),), ()))
    return draw_grid(drawn, MIN_WIDTH, max(1, *(len(row.cells) for row in drawn)))


def _row(folder: Path, bundle: Bundle) -> Row:
    """A bundle's key frames, and of the others those that a gate failed."""
    shown = [(i, frame) for i, frame in enumerate(bundle.frames) if frame.key_frame or _failed(frame)]
    rejected = say_rejected(bundle)
    cells = [_cell(folder, bundle, index, frame) for index, frame in islice(shown, _MAX_COLUMNS)]
    if rejected and not any(cell.rejected for cell in cells):
        # The whole of it was rejected: by the way it took, and not by what a frame shows.
        cells = [Cell(cell.picture, cell.caption, True) for cell in cells]
        cells = cells or [Cell(Image.new("RGB", _NOTHING, "white"), (Line("no frame was kept", GREY),), True)]
    return Row(tuple(_heading(bundle, rejected, len(shown) - len(cells))), tuple(cells))


def _heading(bundle: Bundle, rejected: str, left_out: int) -> Iterable[Line]:
    asked = bundle.params.get("actions") or format_actions(bundle.actions_between(0, len(bundle.frames) - 1))
    world = bundle.params.get("world", "a world that is not named")
    yield Line(f"{bundle.scene} / {bundle.trajectory}, {world}: {asked}")
    if left_out > 0:
        yield Line(f"{left_out} more key frames are not shown", GREY)
    if rejected:
        yield Line(rejected, RED)


def _cell(folder: Path, bundle: Bundle, index: int, frame: Frame) -> Cell:
    try:
        with Image.open(folder / frame.path) as image:
            picture = image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise DataCorruptedError(f"{bundle.relative_path / frame.path} is no readable image: {error}") from error
    if index == 0:
        return to_cell(frame, picture, ANCHOR)
    return to_cell(frame, picture, format_actions(bundle.actions_between(_key_before(bundle, index), index)))


def _key_before(bundle: Bundle, index: int) -> int:
    return max(i for i in range(index) if bundle.frames[i].key_frame)


def _failed(frame: Frame) -> bool:
    return any(not verdict.passed for verdict in frame.gates)
