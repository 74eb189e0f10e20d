"""Distil: train a new checkpoint from the one that serves, on a round's dataset, and publish it."""

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.patience import patiently
from trainer.recipes import recipe_config
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.datasets import Dataset
from world2vlm.errors import UnavailableError
from world2vlm.rounds import RoundPlan

Progress = Callable[[int, int, dict[str, float]], None]


def distil(
    plan: RoundPlan,
    registry: Registry,
    dataset: Dataset,
    *,
    bundles: Path,
    work: Path,
    threads: int,
    patience_s: float,
    on_progress: Progress,
) -> dict[str, Any]:
    """Train and publish; a killed training continues from its last snapshot in `work`, which must be held `alone`.

    Returns:
        `version`, `parent`, `digest`, `recipe`, `steps`, `config`, `metrics`, `seconds`.

    Raises:
        UnavailableError: no checkpoint serves within `patience_s`.
    """
    from trainer.sft import train

    config = recipe_config(plan, threads)
    parent = patiently(lambda: _serving(registry), patience_s)
    # By parent: a snapshot must never continue under another checkpoint than it began with.
    out = work / f"from-{parent}"
    started = time.monotonic()
    with whole(registry, parent) as folder:
        metrics = train(config, folder, dataset.splits["train"], bundles, out, on_progress)
    metrics |= _calibrate(out, dataset, bundles)
    manifest = registry.publish(
        out,
        parent=parent,
        kind="full",
        dataset_digest=dataset.digest,
        recipe=plan.recipe,
        metrics=metrics,
        key=f"round/{plan.id}",
    )
    return {
        "version": manifest.version,
        "parent": manifest.parent,
        "digest": manifest.digest,
        "recipe": plan.recipe,
        "steps": plan.steps,
        "config": asdict(config),
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
