"""Distil: train a new checkpoint from the one that serves, on a round's dataset, and publish it."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.card import write_model_card
from trainer.patience import patiently
from trainer.progress import Progress
from trainer.recipes import Recipe, load_recipe
from trainer.tracking import Tracking
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.datasets import Dataset
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.rounds import RoundPlan


def distil(
    plan: RoundPlan,
    registry: Registry,
    dataset: Dataset,
    *,
    bundles: Path,
    work: Path,
    threads: int,
    patience_s: float,
    tracking: Tracking,
    on_progress: Progress,
) -> dict[str, Any]:
    """Train and publish; a killed training continues from its last snapshot in `work`, which must be held `alone`.

    Returns:
        `version`, `parent`, `digest`, `recipe`, `steps`, `config` (the resolved recipe), `metrics`, `seconds`.

    Raises:
        UnavailableError: no checkpoint serves within `patience_s`.
        InvalidInputError, DivergedError, GateRejectedError: see `train_and_publish`.
    """
    recipe = load_recipe(plan.recipe).adjusted(steps=plan.steps, seed=plan.seed, threads=threads)
    parent = patiently(lambda: _serving(registry), patience_s)
    # By parent: a snapshot must never continue under another checkpoint than it began with.
    stages = work / f"from-{parent}"
    return train_and_publish(
        recipe,
        registry,
        dataset,
        parent=parent,
        bundles=bundles,
        work=stages,
        key=f"round/{plan.id}",
        run=plan.id,
        tracking=tracking,
        on_progress=on_progress,
    )


def train_and_publish(
    recipe: Recipe,
    registry: Registry,
    dataset: Dataset,
    *,
    parent: int,
    bundles: Path,
    work: Path,
    key: str,
    run: str,
    tracking: Tracking,
    on_progress: Progress,
) -> dict[str, Any]:
    """Train a version's child by a recipe, calibrate it and publish it under `key`; returns what `distil` does.

    `run` is what its curves are called.

    Raises:
        InvalidInputError: the recipe trains another kind of student, or there is nothing to train on.
        DivergedError, GateRejectedError: a stage was stopped.
    """
    if recipe.finetune is not None or recipe.base is not None:
        raise InvalidInputError(f"recipe {recipe.name} is not for the student that serves: it has [finetune] or [base]")
    from trainer.stages import train_student

    started = time.monotonic()
    with whole(registry, parent) as folder, tracking.run(run, recipe.to_json(), on_progress) as tell:
        out, metrics = train_student(recipe, folder, dataset.splits["train"], bundles, work, tell)
    metrics |= _calibrate(out, dataset, bundles)
    recipe.write(out)
    write_model_card(out, recipe, parent, dataset, metrics)
    manifest = registry.publish(
        out,
        parent=parent,
        kind="full",
        dataset_digest=dataset.digest,
        recipe=recipe.name,
        metrics=metrics,
        key=key,
    )
    return {
        "version": manifest.version,
        "parent": manifest.parent,
        "digest": manifest.digest,
        "recipe": recipe.name,
        "steps": recipe.steps,
        "config": recipe.to_json(),
        "metrics": dict(manifest.metrics),
        "seconds": round(time.monotonic() - started, 3),
    }


def _calibrate(folder: Path, dataset: Dataset, bundles: Path) -> dict[str, float]:
    """Fit the new checkpoint's temperatures and store them with it. Returns them as metrics."""
    from trainer.calibration import fit_temperatures
    from world2vlm.vlm.student import StudentModel, write_calibration

    student = StudentModel.load(folder)
    student.temperatures = fit_temperatures(student, dataset.splits["calibration"], bundles)
    write_calibration(folder, student.temperatures)
    return {f"temperature_{kind}": value for kind, value in student.temperatures.items()}


def _serving(registry: Registry) -> int:
    version = registry.serving()
    if version is None:
        raise UnavailableError("no checkpoint serves yet: start the student service")
    return version


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` alone on this machine, and delete it at the end unless something failed.

    Two deliveries of one round must not write the same checkpoint at once; the second waits for the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        shutil.rmtree(folder, ignore_errors=True)
