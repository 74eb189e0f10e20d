"""VSI-Bench (arXiv 2412.14171): eight tasks on 288 videos of rooms, choices and numbers.

Published as `nyu-visionx/VSI-Bench` on the Hugging Face hub: `test.jsonl` and the same as Parquet, each row with `id`,
`dataset`, `scene_name`, `question_type`, `question`, `options` (texts that begin with their letter, or null) and
`ground_truth` (a letter or a number, as text), and three archives with the videos, `<dataset>/<scene_name>.mp4` when
unpacked beside them.
"""

import re
from pathlib import Path
from typing import Any

from trainer.suites.items import LETTERS, SuiteItem
from trainer.suites.parsing import parse_number
from trainer.suites.pictures import Video
from trainer.suites.rows import Row, read_items, text, texts
from world2vlm.errors import InvalidInputError

REPOSITORY = "nyu-visionx/VSI-Bench"
FILES = ("test.jsonl", "test-*.parquet")
ARCHIVES = ("arkitscenes.zip", "scannet.zip", "scannetpp.zip")

DIRECTION = "object_rel_direction"
TASKS = {
    "object_counting": "object_counting",
    "object_abs_distance": "object_abs_distance",
    "object_size_estimation": "object_size_estimation",
    "room_size_estimation": "room_size_estimation",
    "object_rel_distance": "object_rel_distance",
    "object_rel_direction_easy": DIRECTION,
    "object_rel_direction_medium": DIRECTION,
    "object_rel_direction_hard": DIRECTION,
    "route_planning": "route_planning",
    "obj_appearance_order": "obj_appearance_order",
}
"""Question type -> task. A task's score is the mean over its types, and the overall score the mean over the tasks."""

_NUMERIC = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
_OPTION = re.compile(r"(?P<letter>[A-Z])[.)]\s+(?P<text>.+)", re.DOTALL)
_PREFACE = "These are frames of a video, in order.\n"


def load(path: Path) -> list[SuiteItem]:
    """Read the published questions; the videos are looked for in the folder that the file is in.

    Raises:
        InvalidInputError: see `rows.read_items`; a question type that the suite does not have, or a video that is not
            there.
    """
    return read_items(path, lambda row, _number: _parse(row, path.parent))


def _parse(row: Row, folder: Path) -> SuiteItem:
    category, scene = text(row, "question_type"), f"{text(row, 'dataset')}/{text(row, 'scene_name')}"
    if category not in TASKS:
        raise InvalidInputError(f"unknown 'question_type' {category!r}; known are {', '.join(TASKS)}")
    choices = () if category in _NUMERIC else _choices(texts(row, "options"))
    return SuiteItem(
        id=_id(row.get("id")),
        category=category,
        question=_PREFACE + text(row, "question"),
        choices=choices,
        answer=_answer(text(row, "ground_truth"), choices),
        pictures=Video(_video(folder, scene)),
        group=scene,
    )


def _id(value: Any) -> str:
    if not isinstance(value, int | str):
        raise InvalidInputError("'id' must be a number or a text")
    return str(value)


def _choices(options: tuple[str, ...]) -> tuple[str, ...]:
    matches = [_OPTION.fullmatch(option) for option in options]
    letters = [match["letter"] for match in matches if match]
    if letters != list(LETTERS[: len(options)]):
        raise InvalidInputError(f"'options' must begin with their letters, not {options!r}")
    return tuple(match["text"] for match in matches if match)


def _answer(truth: str, choices: tuple[str, ...]) -> int | float:
    if choices:
        if truth not in LETTERS[: len(choices)]:
            raise InvalidInputError(f"the 'ground_truth' {truth!r} is the letter of no choice")
        return LETTERS.index(truth)
    number = parse_number(truth)
    if number is None:
        raise InvalidInputError(f"the 'ground_truth' {truth!r} is no number")
    return number


def _video(folder: Path, scene: str) -> Path:
    path = folder / f"{scene}.mp4"
    if not path.is_file():
        raise InvalidInputError(f"no video {path}; unpack the archives (*.zip) in {folder}")
    return path
