"""Supervised fine-tuning of a student on a dataset's task records, with replay of what it could do before.

Deterministic in its config and its data: the batch of a step depends on the seed and the step alone, and snapshots hold
the optimisers' state, so a killed run continues to the same weights.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from trainer.optim import OptimConfig, StudentOptimizer
from trainer.packing import Example, PackedStudent
from trainer.perception import SUFFIXES, ask
from trainer.snapshots import load_snapshot, remove_snapshot, save_snapshot
from world2vlm.bundles import ObjectView, read_bundle
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, AnswerKind
from world2vlm.vlm import StudentModel
from world2vlm.vlm.processor import ClipProcessor

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class SftConfig:
    """The recipe of a round's training.

    Attributes:
        steps: optimiser steps.
        clips: clips a step; each is one pair of views (or one view twice).
        questions: questions a clip at most.
        replay: share of clips that replay perception questions.
        tasks: chance that a clip is drawn for a task; its other questions come from the same views.
        exact: share of a coordinate's target that goes to the very number. Without it a 0 at the image's edge is
            said as 1, and "[1" goes on as "[1 meters".
        motion_weight: loss weight of a token of a motion or a sequence, relative to a box's.
        binary_weight: the same for yes/no answers: one telling token against a box's four.
        snapshot_every: steps between snapshots.
        threads: torch threads.
    """

    steps: int = 1000
    clips: int = 16
    questions: int = 8
    replay: float = 0.15
    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"A1": 2, "A2": 1.5, "A3": 2, "A4": 1.5, "D1": 1, "D2": 2, "D3": 1, "D4": 2.5}
    )
    exact: float = 0.3
    motion_weight: float = 2.0
    binary_weight: float = 6.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon_lr=0.01, adam_lr=7e-4))
    snapshot_every: int = 200
    threads: int = 2
    seed: int = 0


def train(
    config: SftConfig,
    base: Path,
    records: Sequence[TaskRecord],
    bundles_root: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
) -> dict[str, float]:
    """Fine-tune the checkpoint at `base` and write the new one to `out`.

    Args:
        config: the recipe.
        base: folder of the parent checkpoint.
        records: the dataset's training records; image paths are relative to `bundles_root`.
        bundles_root: where the bundles are.
        out: folder of the new checkpoint; a snapshot in it is continued.
        on_progress: called after each step with (step, steps, running means).

    Returns:
        The running means at the end.
    """
    torch.set_num_threads(config.threads)
    student = StudentModel.load(base)
    packed = PackedStudent(student, exact=config.exact)
    clips = ClipSource(config, records, bundles_root, student.processor)
    optimizer = StudentOptimizer([student.model], config.optim, config.steps)
    done, means = load_snapshot(out, student.model, optimizer)
    student.model.train()
    for step in range(done, config.steps):
        frames, rows = clips.batch(step)
        loss = packed.loss(packed.pack(rows), packed.see(frames))
        optimizer.step(loss)
        value = loss.item()
        means = {"loss": 0.98 * means.get("loss", value) + 0.02 * value}
        on_progress(step + 1, config.steps, means)
        if (step + 1) % config.snapshot_every == 0:
            save_snapshot(out, student.model, optimizer, step + 1, means)
    student.model.train(False)
    student.save(out)
    remove_snapshot(out)
    return means


class ClipSource:
    """Draws the clips and questions of a step from task records and, for replay, from the objects in their frames."""

    def __init__(
        self, config: SftConfig, records: Sequence[TaskRecord], bundles_root: Path, processor: ClipProcessor
    ) -> None:
        self._config = config
        self._by_views: dict[tuple[str, ...], list[TaskRecord]] = defaultdict(list)
        self._by_task: dict[str, list[TaskRecord]] = defaultdict(list)
        for record in records:
            self._by_views[record.images].append(record)
            self._by_task[record.task_type].append(record)
        self._tasks = [task for task in config.tasks if self._by_task[task]]
        self._chances = [config.tasks[task] for task in self._tasks]
        paths = sorted({path for record in records for path in record.images})
        self._index = {path: index for index, path in enumerate(paths)}
        self._frames = _load_frames([bundles_root / path for path in paths], processor)
        self._objects = _load_objects(paths, bundles_root)

    def batch(self, step: int) -> tuple[NDArray[np.uint8], list[list[Example]]]:
        """Frames uint8 (clips, 2, S, S, 3) and each clip's questions; a function of the seed and the step."""
        rng = random.Random(f"{self._config.seed}/{step}")
        drawn = [
            self._replay(rng) if rng.random() < self._config.replay else self._motion(rng)
            for _ in range(self._config.clips)
        ]
        index = np.array([pair for pair, _ in drawn])
        return self._frames[index], [examples for _, examples in drawn]

    def _motion(self, rng: random.Random) -> tuple[tuple[int, int], list[Example]]:
        task = rng.choices(self._tasks, self._chances)[0]
        first = rng.choice(self._by_task[task])
        others = [record for record in self._by_views[first.images] if record is not first]
        chosen = [first, *rng.sample(others, min(len(others), self._config.questions - 1))]
        pair = self._index[first.images[0]], self._index[first.images[-1]]
        return pair, [self._example(record) for record in chosen]

    def _replay(self, rng: random.Random) -> tuple[tuple[int, int], list[Example]]:
        while True:
            first, last = (rng.randrange(len(self._frames)) for _ in range(2))
            if rng.random() < 0.5:
                last = first
            examples: dict[str, Example] = {}
            for _ in range(self._config.questions):
                which = rng.randrange(2) if first != last else -1
                asked = ask(self._objects[last if which == 1 else first], SUFFIXES[which + 1], rng)
                if asked:
                    examples[asked.question] = Example(asked.question, asked.answer, asked.weight, asked.ordinal)
            if examples:
                return (first, last), list(examples.values())

    def _example(self, record: TaskRecord) -> Example:
        kind = TASKS[record.task_type].kind
        weights = {AnswerKind.BOX: 1.0, AnswerKind.BINARY: self._config.binary_weight}
        weight = weights.get(kind, self._config.motion_weight)
        return Example(record.question, record.assistant, weight, ordinal=kind is AnswerKind.BOX)


def _load_frames(paths: Sequence[Path], processor: ClipProcessor) -> NDArray[np.uint8]:
    frames = np.empty((len(paths), processor.frame_size, processor.frame_size, 3), dtype=np.uint8)
    for index, path in enumerate(paths):
        with Image.open(path) as image:
            frames[index] = processor.to_frame(image)
    return frames


def _load_objects(paths: Sequence[str], bundles_root: Path) -> list[Sequence[ObjectView]]:
    bundles = {folder: read_bundle(bundles_root / folder) for folder in {Path(path).parents[1] for path in paths}}
    by_path = {str(folder / frame.path): frame.objects for folder, bundle in bundles.items() for frame in bundle.frames}
    return [by_path[path] for path in paths]
