"""A recipe's stages, one after the other, each continued where a kill left it."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import sft
from trainer.grpo import training as grpo
from trainer.progress import Progress
from trainer.recipes import Recipe
from world2vlm.errors import InvalidInputError
from world2vlm.files import canonical_json, write_atomically
from world2vlm.records import TaskRecord

MEANS_FILE = "training.json"
"""Within a stage's checkpoint: its running means at the end."""


@dataclass(frozen=True)
class _Stage:
    name: str
    train: Callable[..., dict[str, float]]
    config: Any

    @property
    def steps(self) -> int:
        steps: int = self.config.steps
        return steps


def train_student(
    recipe: Recipe,
    parent: Path,
    records: Sequence[TaskRecord],
    bundles_root: Path,
    work: Path,
    on_progress: Progress = lambda step, steps, figures: None,
) -> tuple[Path, dict[str, float]]:
    """Train the built-in student by a recipe.

    Args:
        recipe: with `sft` or `grpo`, or both.
        parent: folder of the checkpoint to begin with.
        records: the dataset's training records; image paths are relative to `bundles_root`.
        bundles_root: where the bundles are.
        work: folder of the stages' checkpoints; what a run that was killed has left there is continued.
        on_progress: called after each step with (step, steps, running means), over all stages.

    Returns:
        The folder of the last stage's checkpoint, and all stages' means at their ends, with the stage's name in front.

    Raises:
        InvalidInputError: nothing to train on.
        DivergedError, GateRejectedError: a stage was stopped.
    """
    used = recipe.select(records)
    if not used:
        raise InvalidInputError(f"the dataset has no record that recipe {recipe.name} trains on")
    metrics: dict[str, float] = {}
    folder, before = parent, 0
    for stage in _stages(recipe):
        out, part = work / stage.name, work / f"{stage.name}.part"
        if not out.exists():
            shifted = _shifted(on_progress, before, recipe.steps)
            means = stage.train(stage.config, folder, used, bundles_root, part, shifted)
            write_atomically(part / MEANS_FILE, canonical_json(means).encode())
            os.replace(part, out)
        found = json.loads((out / MEANS_FILE).read_bytes())
        metrics |= {f"{stage.name}_{name}": value for name, value in found.items()}
        folder, before = out, before + stage.steps
    return folder, metrics


def _stages(recipe: Recipe) -> Iterator[_Stage]:
    if recipe.sft is not None:
        yield _Stage("sft", sft.train, recipe.sft)
    if recipe.grpo is not None:
        yield _Stage("grpo", grpo.train, recipe.grpo)


def _shifted(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda step, _steps, figures: on_progress(before + step, total, figures)
