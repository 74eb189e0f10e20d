"""SAT (arXiv 2412.07755): does the reader know what a motion does to what is seen? Two choices, one or two pictures.

Published as Parquet, `array/SAT` on the Hugging Face hub: `SAT_test.parquet` (150 questions on photographs, called
SAT-Real), `SAT_val.parquet` (4,000 synthetic ones), each row with `image_bytes` (a list of encoded pictures),
`question`, `answers` (a list of texts), `question_type` and `correct_answer` (one of them). Its second edition,
`array/SAT-v2`, has `images` (a list of {bytes, path}) for `image_bytes` and its files under `data/`.
"""

import hashlib
from pathlib import Path
from typing import Any

from trainer.suites.items import SuiteItem
from trainer.suites.pictures import EncodedPictures
from trainer.suites.rows import Row, read_items, text, texts
from world2vlm.errors import InvalidInputError

REPOSITORY = "array/SAT"
FILES = ("SAT_test.parquet", "data/test-*.parquet")


def load(path: Path) -> list[SuiteItem]:
    """Read one published file.

    Raises:
        InvalidInputError: see `rows.read_items`.
    """
    return read_items(path, _parse)


def _parse(row: Row, number: int) -> SuiteItem:
    pictures = _pictures(row)
    choices = texts(row, "answers")
    answer = text(row, "correct_answer")
    if answer not in choices:
        raise InvalidInputError(f"the 'correct_answer' {answer!r} is none of the 'answers'")
    return SuiteItem(
        id=str(number),
        category=text(row, "question_type"),
        question=text(row, "question"),
        choices=choices,
        answer=choices.index(answer),
        pictures=EncodedPictures(pictures),
        # The files name no scene; questions on the same first picture belong together.
        group=hashlib.sha256(pictures[0]).hexdigest()[:16],
    )


def _pictures(row: Row) -> tuple[bytes, ...]:
    key = "images" if "images" in row else "image_bytes"
    listed = row.get(key)
    if not isinstance(listed, list) or not listed:
        raise InvalidInputError(f"{key!r} must be a list of pictures")
    return tuple(_encoded(picture, key) for picture in listed)


def _encoded(picture: Any, key: str) -> bytes:
    data = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(data, bytes) or not data:
        raise InvalidInputError(f"{key!r} has a picture without bytes")
    return data
