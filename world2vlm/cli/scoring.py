"""`world2vlm score`: responses against true answers, line by line."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from world2vlm import rewards, scoring
from world2vlm.errors import InvalidInputError

Scorer = Callable[[str, str, str], dict[str, float]]
_KEYS = ("task_type", "answer", "response")


class Reward(StrEnum):
    """Which yardstick: ours (exact parsing, no credit for format), or World2VLM's published reward."""

    STRICT = "strict"
    WORLD2VLM = "world2vlm"


_SCORERS: dict[Reward, Scorer] = {Reward.STRICT: scoring.score, Reward.WORLD2VLM: rewards.reward}


def score(
    file: Annotated[Path, typer.Argument(help='JSON Lines of {"task_type", "answer", "response"}.')],
    reward: Annotated[Reward, typer.Option(help="Our strict score, or World2VLM's published reward.")] = Reward.STRICT,
) -> None:
    """Score responses: one JSON object a line, `overall` and its parts, in the file's order."""
    for parts in score_file(file, _SCORERS[reward]):
        print(json.dumps(parts))


def score_file(file: Path, scorer: Scorer) -> list[dict[str, float]]:
    """Score each line of a JSON Lines file; blank lines are skipped.

    Raises:
        InvalidInputError: the file can't be read, or a line is broken; the text names the line's number, from 1.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file}: cannot be read: {error}") from error
    scores = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            scores.append(scorer(*_fields(json.loads(line))))
        except ValueError as error:
            raise InvalidInputError(f"{file}, line {number}: {error}") from error
    return scores


def _fields(payload: Any) -> tuple[str, str, str]:
    if not isinstance(payload, dict):
        raise InvalidInputError("not a JSON object")
    for key in _KEYS:
        if not isinstance(payload.get(key), str):
            raise InvalidInputError(f"{key!r} must be a text")
    return payload["task_type"], payload["answer"], payload["response"]
