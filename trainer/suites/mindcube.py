"""MindCube (arXiv 2506.21458): what is where, from a few views of a place?

Published as `MLL-Lab/MindCube` on the Hugging Face hub, one `data.zip`: JSON Lines in `data/raw/`
(`MindCube_tinybench.jsonl` with 1,050 questions, `MindCube.jsonl` with all) and pictures under `data/`. Each row has
`id` (it begins with the type: among, around, rotation), `question` (ends with `A. ... B. ...`), `images` (paths within
`data/`) and `gt_answer` (a letter). Prepared variants add an `input_prompt`, which is left alone: it fixes the order of
the choices.
"""

import re
from pathlib import Path, PurePosixPath

from trainer.suites.items import LETTERS, SuiteItem
from trainer.suites.pictures import PictureFiles
from trainer.suites.rows import Row, read_items, text, texts
from world2vlm.errors import InvalidInputError

REPOSITORY = "MLL-Lab/MindCube"
FILES = ("data/raw/MindCube_tinybench.jsonl", "raw/MindCube_tinybench.jsonl", "MindCube_tinybench.jsonl")
ARCHIVES = ("data.zip",)

_TYPES = {"among": "among", "around": "around", "aroundnew": "around", "rotation": "rotation"}
_LETTER = re.compile(r"(?:^|\s)([A-Z])\.\s+")
_TAG = "<image>"


def load(path: Path) -> list[SuiteItem]:
    """Read one published file; the pictures are looked for in the folders that it is in.

    Raises:
        InvalidInputError: see `rows.read_items`; a question whose choices cannot be told apart, or a picture that is
            not there.
    """
    return read_items(path, lambda row, _number: _parse(row, path))


def _parse(row: Row, file: Path) -> SuiteItem:
    name, images = text(row, "id"), texts(row, "images")
    category = _TYPES.get(name.split("_")[0])
    if category is None:
        raise InvalidInputError(f"the 'id' {name!r} begins with none of {', '.join(_TYPES)}")
    question, choices = split_choices(text(row, "question").replace(_TAG, ""))
    truth = text(row, "gt_answer")
    if truth not in LETTERS[: len(choices)]:
        raise InvalidInputError(f"the 'gt_answer' {truth!r} is the letter of no choice")
    return SuiteItem(
        id=name,
        category=category,
        question=question,
        choices=choices,
        answer=LETTERS.index(truth),
        pictures=PictureFiles(tuple(_find(file, image) for image in images)),
        # Pictures of one place share a folder.
        group=str(PurePosixPath(images[0]).parent),
    )


def split_choices(question: str) -> tuple[str, tuple[str, ...]]:
    """Split `Which way? A. Left B. Right` into the question and its choices.

    Raises:
        InvalidInputError: it does not end with choices A., B. and so on.
    """
    found = list(_LETTER.finditer(question))
    starts = [index for index, match in enumerate(found) if match[1] == "A"]
    run = found[starts[-1] :] if starts else []
    if len(run) < 2 or [match[1] for match in run] != list(LETTERS[: len(run)]):
        raise InvalidInputError("'question' must end with its choices: A. ... B. ...")
    ends = [match.start() for match in run[1:]] + [len(question)]
    choices = tuple(question[match.end() : end].strip() for match, end in zip(run, ends, strict=True))
    if not all(choices):
        raise InvalidInputError("'question' has an empty choice")
    return question[: run[0].start()].strip(), choices


def _find(file: Path, image: str) -> Path:
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise InvalidInputError(f"the picture {image!r} leaves the suite's folder")
    for folder in (file.parent.parent, file.parent):
        if (folder / path).is_file():
            return folder / path
    raise InvalidInputError(f"no picture {file.parent.parent / path}; unpack data.zip")
