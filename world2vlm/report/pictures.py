"""Pictures for the page: imagined frames with boxes drawn on them, and questions with their images."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from world2vlm.actions import format_actions
from world2vlm.boxes import SCALE, Box, parse_box
from world2vlm.bundles import Frame, read_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, AnswerKind

_SIDE = 256
_QUALITY = 88
_MIN_AREA = 0.006
_RIGHT_IOU = 0.5

GIVEN, TRUE, BEFORE, AFTER = "#2f6fdb", "#1a8f4a", "#8a8f98", "#e07b00"
_OBJECTS = ("#2f6fdb", "#e07b00", "#1a8f4a", "#b5379d", "#c2a200", "#0097a7", "#d0342c", "#6b5bd2")


@dataclass(frozen=True)
class Picture:
    """An image as a data URI with what stands under it."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Strip:
    """The key frames of one imagined trajectory, the source first."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Said:
    """An answer and whether it is right: fully so, or a box with an IoU of at least 0.5."""

    text: str
    score: float
    right: bool


@dataclass(frozen=True)
class Exhibit:
    """One held-out question with its images and what the student said before and after the round."""

    task: str
    question: str
    truth: str
    pictures: tuple[Picture, ...]
    before: Said
    after: Said


def make_strip(bundles: Path, folder: str) -> Strip:
    """Draw a bundle's key frames, each with the boxes of the objects clearly in view.

    Args:
        bundles: the folder that holds all bundles.
        folder: the bundle's path relative to it.
    """
    bundle = read_bundle(bundles / folder)
    frames = [frame for frame in bundle.frames if frame.key_frame]
    order = sorted({view.instance_id for frame in frames for view in frame.objects})
    pictures = tuple(_draw_frame(bundles / folder, frame, order, index) for index, frame in enumerate(frames))
    return Strip(f"{bundle.scene}, world {bundle.params.get('world', 'unknown')}", pictures)


def make_exhibit(bundles: Path, record: TaskRecord, sample: Mapping[str, Any]) -> Exhibit:
    """Draw a question's images with the boxes it names, the true box and the given ones.

    Args:
        bundles: the folder that holds all bundles.
        record: the question's task record.
        sample: `before` and `after`, each with `answer` and `score`.
    """
    first = _boxes((GIVEN, record.meta.get("box")))
    second = _boxes((GIVEN, record.meta.get("second_box")))
    if TASKS[record.task_type].kind is AnswerKind.BOX:
        second = _answers(record.assistant, sample)
    images = [Image.open(bundles / path) for path in record.images]
    views = zip(images, (first, second), ("source", "imagined"), strict=False)
    pictures = [_draw(image, boxes, caption) for image, boxes, caption in views]
    if len(images) == 1:
        pictures.append(_unseen(bundles, record))
    enough = _RIGHT_IOU if TASKS[record.task_type].kind is AnswerKind.BOX else 1.0
    said = (
        Said(each["answer"], each["score"], each["score"] >= enough) for each in (sample["before"], sample["after"])
    )
    return Exhibit(record.task_type, record.question, record.assistant, tuple(pictures), *said)


def _draw_frame(folder: Path, frame: Frame, order: Sequence[int], index: int) -> Picture:
    boxes = [
        (_OBJECTS[order.index(view.instance_id) % len(_OBJECTS)], view.box, f"{view.colour} {view.category}".strip())
        for view in frame.objects
        if view.area >= _MIN_AREA
    ]
    caption = format_actions(frame.actions_step) if index else "source"
    return _draw(Image.open(folder / frame.path), boxes, caption)


def _unseen(bundles: Path, record: TaskRecord) -> Picture:
    """The view that a one-image question is about, and that the student doesn't get to see."""
    folder = (bundles / record.images[0]).parents[1]
    frame = read_bundle(folder).frames[record.meta["frames"][1]]
    wanted = record.meta.get("instance")
    boxes = [(TRUE, view.box, "") for view in frame.objects if view.instance_id == wanted]
    return _draw(Image.open(folder / frame.path), boxes, "what came, not shown to the student")


def _answers(truth: str, sample: Mapping[str, Any]) -> list[tuple[str, Box, str]]:
    given = ((BEFORE, sample["before"]["answer"], "before"), (AFTER, sample["after"]["answer"], "after"))
    drawn = []
    for colour, text, name in ((TRUE, truth, "true"), *given):
        try:
            drawn.append((colour, parse_box(text), name))
        except InvalidInputError:
            continue  # the student gave no box; the answer's text is shown anyway
    return drawn


def _boxes(*given: tuple[str, Sequence[int] | None]) -> list[tuple[str, Box, str]]:
    return [(colour, Box(*corners), "") for colour, corners in given if corners]


def _draw(image: Image.Image, boxes: Iterable[tuple[str, Box, str]], caption: str) -> Picture:
    height = round(_SIDE * image.height / image.width)
    canvas = image.convert("RGB").resize((_SIDE, height), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for colour, box, name in boxes:
        x1, y1, x2, y2 = (v * side / SCALE for v, side in zip(box.corners, (_SIDE, height) * 2, strict=True))
        # Around the box, not in it: the smallest box still has an outline.
        pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline="white", width=4)
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=colour, width=2)
        if name:
            _label(pen, (x1 + 3, y1 + 3), name, colour)
    return Picture(_uri(canvas), caption)


def _label(pen: ImageDraw.ImageDraw, corner: tuple[float, float], name: str, colour: str) -> None:
    x1, y1, x2, y2 = pen.textbbox(corner, name, font_size=11)
    pen.rectangle((x1 - 2, y1 - 1, x2 + 2, y2 + 1), fill=colour)
    pen.text(corner, name, fill="white", font_size=11)


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)  # thin coloured lines stay sharp
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
