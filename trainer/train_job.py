"""Training outside of a round: by any recipe, on any dataset of the store."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from trainer.distilling import alone, train_and_publish
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.grpo.config import GrpoConfig
from trainer.licensing import pick_permitted
from trainer.progress import advancing
from trainer.recipes import Recipe
from trainer.tracking import Tracking
from world2vlm.adapters import whole
from world2vlm.base_student import BASE_STUDENT, publish_base
from world2vlm.checkpoints import Registry
from world2vlm.clients.teacher import TeacherClient
from world2vlm.datasets import pick_dataset
from world2vlm.licences import Policy
from world2vlm.store import Store

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
    recipe: Recipe,
    store: Store,
    registry: Registry,
    digest: str,
    parent: int,
    work: Path,
    tracking: Tracking,
    policy: Policy,
) -> dict[str, Any]:
    """Train a child of a version and publish it; nothing is evaluated, and nothing promoted.

    Run twice it gives the same version; killed, it goes on from its last snapshot.

    Args:
        recipe: for the built-in student.
        store: where the dataset and its bundles are.
        registry: where the parent is.
        digest: of the dataset; empty: the only one.
        parent: the version; 0: the one that serves, or else the base student.
        work: local folder for checkpoints in the making.
        tracking: where its curves go.
        policy: whose terms are kept.

    Returns:
        See `trainer.distilling.distil`.

    Raises:
        PreconditionError: terms of a world that the dataset comes from are not acknowledged, or not known.
    """
    dataset = pick_permitted(store, digest, policy)
    version = parent or registry.serving() or publish_base(registry).version
    key = f"train/{recipe.digest}/{dataset.digest}/{version}"
    run = f"{recipe.name}-{recipe.digest[:12]}-{dataset.digest[:12]}-from-{version}"
    stages = work / run
    with alone(stages), advancing(f"{recipe.name} from version {version}") as on_progress:
        return train_and_publish(
            recipe,
            registry,
            dataset,
            parent=version,
            bundles=store.local("bundles"),
            work=stages,
            key=key,
            run=run,
            tracking=tracking,
            on_progress=on_progress,
        )


def finetune_by(
    recipe: Recipe, store: Store, digest: str, replay: Sequence[str], out: Path, tracking: Tracking, policy: Policy
) -> None:
    """Fine-tune a vision-language model of transformers into a folder, with GRPO after it where the recipe says so.

    Args:
        recipe: with `finetune`, and perhaps `grpo`.
        store: where datasets and their bundles are.
        digest: of the dataset; empty: the only one.
        replay: digests of earlier datasets, to draw from where the recipe says how much.
        out: the folder; what a run that was killed has left there is continued. With GRPO a folder beside it, see
            `trainer.finetune.stages.tuned_folder`, keeps the fine-tuning's own result.
        tracking: where its curves go.
        policy: whose terms are kept.

    Raises:
        InvalidInputError, GateRejectedError, DivergedError: see `trainer.finetune.training.train` and
            `trainer.finetune.grpo.training.train`.
        PreconditionError: terms of a world that a dataset comes from are not acknowledged, or not known.
    """
    from trainer.finetune.stages import is_first, train

    assert recipe.finetune is not None and not isinstance(recipe.grpo, GrpoConfig)
    records = recipe.select(pick_permitted(store, digest, policy).splits["train"])
    replayed = [pick_permitted(store, each, policy).splits["train"] for each in replay]
    earlier = [record for split in replayed for record in recipe.select(split)]
    if not is_first():
        tracking = Tracking()
    run = f"{recipe.name}-{recipe.digest[:12]}"
    with advancing(recipe.name) as on_progress, tracking.run(run, recipe.to_json(), on_progress) as tell:
        train(recipe.finetune, recipe.grpo, records, store.local("bundles"), out, tell, replay=earlier)
    if is_first():
        recipe.write(out)


def pretrain_by(
    recipe: Recipe, teacher: TeacherClient, out: Path, work: Path, tracking: Tracking, policy: Policy
) -> dict[str, Any]:
    """Pre-train a base student into a folder, with its card.

    Args:
        recipe: with `base`.
        teacher: whose default world for scenes renders the rooms.
        out: the folder.
        work: local folder; `base-views` in it keeps what was rendered.
        tracking: where its curves go.
        policy: whose terms are kept.

    Returns:
        See `trainer.base_card.write_card`.

    Raises:
        PreconditionError: the world's terms are not acknowledged.
        World2VLMError: whatever the teacher raises.
    """
    from trainer.base_job import make_base_student

    assert recipe.base is not None
    run = f"{recipe.name}-{recipe.digest[:12]}"
    with advancing(recipe.name) as on_progress, tracking.run(run, recipe.to_json(), on_progress) as tell:
        card = make_base_student(teacher, recipe.base, out, work / "base-views", tell, policy)
    recipe.write(out)
    return card


def estimate(recipe: Recipe, store: Store, registry: Registry, digest: str, parent: int) -> dict[str, Any]:
    """What a training takes, as a JSON object; see `Estimate`, and for [finetune] `trainer.finetune.estimate`."""
    if recipe.base is not None:
        from world2vlm.vlm import build_student

        return asdict(_estimate(build_student(recipe.base.student).model.num_parameters(), recipe))
    if recipe.finetune is None:
        return asdict(_estimate_student(recipe, registry, parent))
    from trainer.finetune.estimate import estimate as estimate_finetune
    from trainer.finetune.estimate import with_grpo

    records = recipe.select(pick_dataset(store, digest).splits["train"])
    found = estimate_finetune(recipe.finetune, len(records))
    return asdict(with_grpo(found, recipe.grpo) if isinstance(recipe.grpo, FinetuneGrpoConfig) else found)


def _estimate_student(recipe: Recipe, registry: Registry, parent: int) -> Estimate:
    from world2vlm.vlm.onnx_weights import weight_shapes

    version = parent or registry.serving()
    with whole(registry, version) if version else nullcontext(BASE_STUDENT) as folder:
        return _estimate(sum(map(prod, weight_shapes(folder).values())), recipe)


def _estimate(size: int, recipe: Recipe) -> Estimate:
    # Muon keeps one number for each weight of a matrix, AdamW two for each of the others: at most three with gradients.
    copies = 1 + 3 + (recipe.grpo is not None)
    return Estimate(size, copies * size * _FLOAT_BYTES / 1e6, recipe.steps)
