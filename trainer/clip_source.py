"""Draws the clips of a training step and the questions about them."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.packing import Example
from trainer.perception import SUFFIXES, ask, visible
from trainer.pose import Pose, pose_target
from trainer.sft_config import SftConfig
from world2vlm.actions import parse_actions
from world2vlm.bundles import ObjectView, read_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, AnswerKind
from world2vlm.vlm.processor import ClipProcessor

# Tokens of the shortest question with its answer, or less; and how often a question is drawn to find a new one.
_SHORTEST = 8
_TRIES = 2


@dataclass(frozen=True)
class ClipBatch:
    """The clips of a step.

    Attributes:
        frames: uint8 (clips, 2, S, S, 3).
        questions: each clip's questions.
        poses: how the camera moved in each clip, where that is known (`trainer.pose`).
    """

    frames: NDArray[np.uint8]
    questions: list[list[Example]]
    poses: list[Pose | None]


@dataclass(frozen=True)
class _Clip:
    first: int
    last: int
    questions: list[Example]
    pose: Pose | None = None


class ClipSource:
    """Draws from task records and, for replay, from the objects in their frames."""

    def __init__(
        self, config: SftConfig, records: Sequence[TaskRecord], bundles_root: Path, processor: ClipProcessor
    ) -> None:
        self._config = config
        self._by_views: dict[tuple[str, ...], list[TaskRecord]] = defaultdict(list)
        self._by_task: dict[str, list[TaskRecord]] = defaultdict(list)
        self._boxes_from: dict[str, list[TaskRecord]] = defaultdict(list)
        for record in records:
            self._by_views[record.images].append(record)
            self._by_task[record.task_type].append(record)
            if record.task_type == "D1":
                self._boxes_from[record.images[0]].append(record)
        self._tasks = [task for task in config.tasks if self._by_task[task]]
        self._chances = [config.tasks[task] for task in self._tasks]
        paths = sorted({path for record in records for path in record.images})
        self._index = {path: index for index, path in enumerate(paths)}
        self._encode = processor.encode_question
        self._room = config.row_tokens - len(processor.clip_ids())
        self._ends = len(processor.turn_ids()) + 1  # of a question and of its answer
        self._sizes: dict[tuple[str, str], int] = {}
        self._frames = _load_frames([bundles_root / path for path in paths], processor)
        self._objects = _load_objects(paths, bundles_root)
        # Photographs that no detector looked at show nothing to ask about.
        self._replay_share = config.replay if any(map(visible, self._objects)) else 0.0

    def batch(self, step: int) -> ClipBatch:
        """The clips of a step; a function of the seed and the step."""
        rng = random.Random(f"{self._config.seed}/{step}")
        drawn = [
            self._replay(rng) if rng.random() < self._replay_share else self._task_clip(rng)
            for _ in range(self._config.clips)
        ]
        pairs = np.array([(clip.first, clip.last) for clip in drawn])
        return ClipBatch(self._frames[pairs], [clip.questions for clip in drawn], [clip.pose for clip in drawn])

    def views(self, record: TaskRecord) -> list[NDArray[np.uint8]]:
        """A record's frames, each uint8 (S, S, 3)."""
        return [self._frames[self._index[path]] for path in record.images]

    def _task_clip(self, rng: random.Random) -> _Clip:
        task = rng.choices(self._tasks, self._chances)[0]
        first = rng.choice(self._by_task[task])
        others = [record for record in self._by_views[first.images] if record is not first]
        if len(first.images) == 1:
            boxes = self._boxes_from[first.images[0]]
            others += rng.sample(boxes, min(len(boxes), self._config.imagined))
        rng.shuffle(others)
        index = self._index[first.images[0]], self._index[first.images[-1]]
        return _Clip(*index, self._fill(map(self._example, [first, *others])), _pose(first))

    def _replay(self, rng: random.Random) -> _Clip:
        while True:
            first, last = (rng.randrange(len(self._frames)) for _ in range(2))
            if rng.random() < 0.5:
                last = first
            examples = self._fill(self._perception(first, last, rng))
            if examples:
                return _Clip(first, last, examples)

    def _perception(self, first: int, last: int, rng: random.Random) -> Iterator[Example]:
        """Different questions about what is seen in two frames, or in one frame twice."""
        asked_before = set()
        for _ in range(_TRIES * self._config.questions):
            which = rng.randrange(2) if first != last else -1
            asked = ask(self._objects[last if which == 1 else first], SUFFIXES[which + 1], rng)
            if asked and asked.question not in asked_before:
                asked_before.add(asked.question)
                weight = self._config.replay_weight * asked.weight
                yield Example(asked.question, asked.answer, weight, asked.ordinal)

    def _fill(self, candidates: Iterable[Example]) -> list[Example]:
        """The first candidates that a row has room for."""
        chosen: list[Example] = []
        room = self._room
        for example in candidates:
            size = self._size(example)
            # The very first is asked in any case.
            if not chosen or size <= room:
                chosen.append(example)
                room -= size
            if len(chosen) == self._config.questions or room < _SHORTEST:
                break
        return chosen

    def _size(self, example: Example) -> int:
        key = example.question, example.answer
        if key not in self._sizes:
            self._sizes[key] = sum(len(self._encode(text)) for text in key) + self._ends
        return self._sizes[key]

    def _example(self, record: TaskRecord) -> Example:
        kind = TASKS[record.task_type].kind
        weights = {AnswerKind.BOX: 1.0, AnswerKind.BINARY: self._config.binary_weight}
        weight = weights.get(kind, self._config.motion_weight)
        return Example(record.question, record.assistant, record.weight * weight, ordinal=kind is AnswerKind.BOX)


def _pose(record: TaskRecord) -> Pose | None:
    """The motion between a record's two images; records from elsewhere may not say it."""
    actions = record.meta.get("actions")
    return pose_target(parse_actions(actions)) if actions and len(record.images) == 2 else None


def _load_frames(paths: Sequence[Path], processor: ClipProcessor) -> NDArray[np.uint8]:
    frames = np.empty((len(paths), processor.frame_size, processor.frame_size, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                frames[index] = processor.to_frame(image)
        except OSError as error:
            raise InvalidInputError(f"the image {path} of a record cannot be read: {error}") from error
    return frames


def _load_objects(paths: Sequence[str], bundles_root: Path) -> list[Sequence[ObjectView]]:
    bundles = {folder: read_bundle(bundles_root / folder) for folder in {Path(path).parents[1] for path in paths}}
    by_path = {str(folder / frame.path): frame.objects for folder, bundle in bundles.items() for frame in bundle.frames}
    return [by_path[path] for path in paths]
