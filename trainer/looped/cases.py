"""Questions as the loop may see them: without the answer, and without what the camera did."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from world2vlm.actions import parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import read_bundle
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.records import TaskRecord
from world2vlm.tasks import Question


@dataclass(frozen=True)
class Start:
    """Where the camera stands when the first image is taken.

    Attributes:
        scene: the procedural scene's seed.
        anchor: which of its anchor poses the bundle began at.
        c2w: the first image's camera relative to that anchor, float64 (4, 4).
        intrinsics: its K, float64 (3, 3), pixels.
        size: (width, height) in pixels.
        png: the first image, encoded.
    """

    scene: int
    anchor: int
    c2w: Floats
    intrinsics: Floats
    size: tuple[int, int]
    png: bytes


@dataclass(frozen=True)
class Case:
    """A question, its one or two images, and where the first was taken."""

    question: Question
    images: tuple[Image.Image, ...]
    start: Start


def read_case(bundles: Path, record: TaskRecord) -> Case:
    """Read what a loop may know of a record.

    Of `meta` only what the question's text says is read, and of the bundle only the first image's camera: neither the
    answer nor anything about the second image but its pixels.

    Args:
        bundles: folder that the record's image paths are relative to.
        record: a record of one of the eight tasks.

    Raises:
        InvalidInputError: the record comes from no procedural scene, or its typed question is not its text.
    """
    question = _question(record)
    folder = (bundles / record.images[0]).parents[1]
    bundle = read_bundle(folder)
    frame = next(frame for frame in bundle.frames if folder / frame.path == bundles / record.images[0])
    if "scene_seed" not in bundle.params:
        raise InvalidInputError(f"{bundle.relative_path}: no procedural scene; the loop needs one to imagine from")
    pngs = [(bundles / path).read_bytes() for path in record.images]
    start = Start(
        int(bundle.params["scene_seed"]),
        int(bundle.params["anchor"]),
        frame.c2w,
        frame.intrinsics,
        frame.size,
        pngs[0],
    )
    return Case(question, tuple(map(decode_image, pngs)), start)


def _question(record: TaskRecord) -> Question:
    meta = record.meta
    question = Question(
        record.task_type,
        actions=tuple(parse_actions(meta["claim"])) if "claim" in meta else (),
        object=meta.get("object", ""),
        box=_box(meta, "box"),
        second_box=_box(meta, "second_box"),
    )
    if question.text != record.question:
        raise InvalidInputError(f"a question of {record.task_type} is not what its meta says: {record.question!r}")
    return question


def _box(meta: Mapping[str, Any], name: str) -> Box | None:
    return Box(*meta[name]) if name in meta else None
