"""Task records: one question with its answer and images, in World2VLM's published JSON Lines format.

`{"task_type", "messages": [user, assistant], "images": [paths]}`, which ms-swift and LLaMA-Factory read, plus one key
of ours, `meta`, that says where a record comes from.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from world2vlm.errors import InvalidInputError
from world2vlm.files import canonical_json, write_atomically
from world2vlm.tasks import IMAGE_TAG


@dataclass(frozen=True)
class TaskRecord:
    """One record.

    Attributes:
        task_type: code of the task, A1 to D4; other codes are allowed (rehearsal of older skills).
        user: the user's message: one `<image>` per image, then the question.
        assistant: the true answer.
        images: paths, relative to the records' file or to the store's `bundles/`.
        meta: where it comes from (scene, trajectory, frames, actions, object, boxes); any JSON object.
    """

    task_type: str
    user: str
    assistant: str
    images: tuple[str, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.task_type or not self.assistant:
            raise InvalidInputError("a task record needs a task_type and an answer")
        tags = self.user.count(IMAGE_TAG)
        if tags != len(self.images):
            raise InvalidInputError(f"a task record has {tags} {IMAGE_TAG} tags for {len(self.images)} images")

    @classmethod
    def create(
        cls, task_type: str, question: str, answer: str, images: Sequence[str], meta: Mapping[str, Any] | None = None
    ) -> "TaskRecord":
        """Build a record from a question without image tags."""
        return cls(task_type, IMAGE_TAG * len(images) + question, answer, tuple(images), dict(meta or {}))

    @property
    def weight(self) -> float:
        """What its answer counts in a loss: how far its teacher can be trusted (`meta["weight"]`), 1 by default.

        Raises:
            InvalidInputError: it is no finite number from 0 on.
        """
        weight = self.meta.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InvalidInputError(f"a record's weight must be a finite number from 0 on, not {weight!r}")
        return float(weight)

    @property
    def question(self) -> str:
        """The user's message without the image tags."""
        return self.user.replace(IMAGE_TAG, "").strip()

    def to_json(self) -> dict[str, Any]:
        """The published format, with `meta` where there is one."""
        payload: dict[str, Any] = {
            "task_type": self.task_type,
            "messages": [
                {"role": "user", "content": self.user},
                {"role": "assistant", "content": self.assistant},
            ],
            "images": list(self.images),
        }
        return {**payload, "meta": dict(self.meta)} if self.meta else payload

    @classmethod
    def from_json(cls, payload: Any) -> "TaskRecord":
        """Read the published format.

        Raises:
            InvalidInputError: a key is missing or of the wrong type, or tags and images differ in number.
        """
        if not isinstance(payload, dict):
            raise InvalidInputError("a task record must be a JSON object")
        user, assistant = _contents(payload.get("messages"))
        images, meta = payload.get("images"), payload.get("meta", {})
        if not isinstance(payload.get("task_type"), str):
            raise InvalidInputError("'task_type' must be a text")
        if not isinstance(images, list) or not all(isinstance(path, str) and path for path in images):
            raise InvalidInputError("'images' must be a list of paths")
        if not isinstance(meta, dict):
            raise InvalidInputError("'meta' must be an object")
        return cls(payload["task_type"], user, assistant, tuple(images), meta)


def _contents(messages: Any) -> list[str]:
    roles = [message.get("role") for message in messages if isinstance(message, dict)] if _is_pair(messages) else []
    if roles != ["user", "assistant"] or not all(isinstance(message.get("content"), str) for message in messages):
        raise InvalidInputError("'messages' must be one user and one assistant message, each with a text as content")
    return [message["content"] for message in messages]


def _is_pair(messages: Any) -> bool:
    return isinstance(messages, list) and len(messages) == 2


def to_line(record: TaskRecord) -> str:
    """One canonical line of JSON, without a line break.

    Raises:
        InvalidInputError: `meta` is not JSON.
    """
    return canonical_json(record.to_json())


def parse_records(data: bytes, name: str) -> list[TaskRecord]:
    """Parse JSON Lines; blank lines are skipped.

    Args:
        data: UTF-8 text.
        name: the file's name, for messages.

    Raises:
        InvalidInputError: a broken line; the text names its number, from 1.
    """
    records = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(TaskRecord.from_json(json.loads(line)))
        except ValueError as error:
            raise InvalidInputError(f"{name}, line {number}: {error}") from error
    return records


def read_records(path: Path | str) -> list[TaskRecord]:
    """Read a `tasks.jsonl`.

    Raises:
        InvalidInputError: the file can't be read, or a line is broken; the text names the line's number.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_records(data, path.name)


def write_records(path: Path | str, records: Iterable[TaskRecord]) -> None:
    """Write a `tasks.jsonl` whole, replacing an older one."""
    write_atomically(Path(path), "".join(f"{to_line(record)}\n" for record in records).encode())
