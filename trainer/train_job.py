"""Training outside of a round: by any recipe, on any dataset of the store."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from trainer.distilling import alone, train_and_publish
from trainer.progress import Progress
from trainer.recipes import Recipe
from trainer.tracking import Tracking
from world2vlm.adapters import whole
from world2vlm.base_student import BASE_STUDENT, publish_base
from world2vlm.checkpoints import Registry
from world2vlm.datasets import pick_dataset
from world2vlm.store import Store
from world2vlm.telemetry import Advance, progress

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Estimate:
    """What a training takes.

    Attributes:
        parameters: of the student.
        memory_mb: weights, gradients, the optimiser's state, and with GRPO a second student; activations come on top.
        steps: of all stages.
    """

    parameters: int
    memory_mb: float
    steps: int


def train_student_by(
    recipe: Recipe, store: Store, registry: Registry, digest: str, parent: int, tracking: Tracking
) -> dict[str, Any]:
    """Train a child of a version and publish it; nothing is evaluated, and nothing promoted.

    Run twice it gives the same version; killed, it goes on from its last snapshot.

    Args:
        recipe: for the built-in student.
        store: where the dataset and its bundles are.
        registry: where the parent is.
        digest: of the dataset; empty: the only one.
        parent: the version; 0: the one that serves, or else the base student.
        tracking: where its curves go.

    Returns:
        See `trainer.distilling.distil`.
    """
    dataset = pick_dataset(store, digest)
    version = parent or registry.serving() or publish_base(registry).version
    key = f"train/{recipe.digest}/{dataset.digest}/{version}"
    run = f"{recipe.name}-{recipe.digest[:12]}-{dataset.digest[:12]}-from-{version}"
    work = Path("runs/train") / run
    with alone(work), _advancing(f"{recipe.name} from version {version}") as on_progress:
        return train_and_publish(
            recipe,
            registry,
            dataset,
            parent=version,
            bundles=store.local("bundles"),
            work=work,
            key=key,
            run=run,
            tracking=tracking,
            on_progress=on_progress,
        )


def finetune_by(
    recipe: Recipe, store: Store, digest: str, replay: Sequence[str], out: Path, tracking: Tracking
) -> None:
    """Fine-tune a vision-language model of transformers into a folder.

    Args:
        recipe: with `finetune`.
        store: where datasets and their bundles are.
        digest: of the dataset; empty: the only one.
        replay: digests of earlier datasets, to draw from where the recipe says how much.
        out: the folder; what a run that was killed has left there is continued.
        tracking: where its curves go.

    Raises:
        InvalidInputError: see `trainer.finetune.training.train`.
    """
    from trainer.finetune.training import train

    assert recipe.finetune is not None
    records = recipe.select(pick_dataset(store, digest).splits["train"])
    earlier = [record for each in replay for record in recipe.select(pick_dataset(store, each).splits["train"])]
    if os.environ.get("RANK", "0") != "0":  # torchrun's
        tracking = Tracking()
    run = f"{recipe.name}-{recipe.digest[:12]}"
    with _advancing(recipe.name) as on_progress, tracking.run(run, recipe.to_json(), on_progress) as tell:
        train(recipe.finetune, records, store.local("bundles"), out, tell, replay=earlier)
    recipe.write(out)


def estimate(recipe: Recipe, store: Store, registry: Registry, digest: str, parent: int) -> dict[str, Any]:
    """What a training takes, as a JSON object; see `Estimate`, and for [finetune] `trainer.finetune.estimate`."""
    if recipe.finetune is None:
        return asdict(_estimate_student(recipe, registry, parent))
    from trainer.finetune.estimate import estimate as estimate_finetune

    records = recipe.select(pick_dataset(store, digest).splits["train"])
    return asdict(estimate_finetune(recipe.finetune, len(records)))


def _estimate_student(recipe: Recipe, registry: Registry, parent: int) -> Estimate:
    from world2vlm.vlm.onnx_weights import weight_shapes

    version = parent or registry.serving()
    with whole(registry, version) if version else nullcontext(BASE_STUDENT) as folder:
        size = sum(map(prod, weight_shapes(folder).values()))
    # Muon keeps one number for each weight of a matrix, AdamW two for each of the others: at most three with gradients.
    copies = 1 + 3 + (recipe.grpo is not None)
    return Estimate(size, copies * size * _FLOAT_BYTES / 1e6, recipe.steps)


@contextmanager
def _advancing(description: str) -> Iterator[Progress]:
    """Show the progress of a training, whose first step says how many there are."""
    with ExitStack() as shown:
        advance: Advance | None = None
        before = 0

        def on_progress(step: int, steps: int, _figures: dict[str, float]) -> None:
            nonlocal advance, before
            advance = advance or shown.enter_context(progress(description, steps))
            advance(step - before)
            before = step

        yield on_progress
