"""`world2vlm train`: a training by a recipe, outside of any round."""

import json
from pathlib import Path
from typing import Annotated

import typer

from world2vlm.errors import InvalidInputError


def train(
    recipe: Annotated[str, typer.Option(help="A recipe's name (trainer/recipes/), or a .toml file of the same form.")],
    dataset: Annotated[
        str, typer.Option(metavar="DIGEST", help="What to train on; default: the store's only one.")
    ] = "",
    parent: Annotated[int, typer.Option(metavar="VERSION", help="What to begin with; default: what serves.")] = 0,
    replay: Annotated[
        list[str] | None, typer.Option(metavar="DIGEST", help="Earlier datasets for a `finetune` recipe's replay.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what a `finetune` or `base` recipe trains.")] = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps of the first stage; 0: as the recipe says.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe, parameters, memory and steps, and stop.")
    ] = False,
) -> None:
    """Train by a recipe and publish the checkpoint; `evaluate` and `checkpoints promote` are what comes next.

    A `finetune` or `base` recipe writes a folder instead; the latter needs a running teacher, and no dataset. Where
    `grpo` follows `finetune`, what it began with stays in a folder beside the named one, which ends in -sft.
    """
    from trainer import train_job
    from trainer.app import local_folder, tracking_of
    from trainer.finetune.stages import is_first
    from trainer.recipes import load_recipe
    from world2vlm.checkpoints import Registry
    from world2vlm.clients.teacher import TeacherClient
    from world2vlm.settings import TrainerSettings
    from world2vlm.store import Store
    from world2vlm.telemetry import configure_logging

    settings = TrainerSettings.load()
    configure_logging(settings.log_format, settings.log_level)
    store = Store(settings.store)
    chosen = load_recipe(recipe).adjusted(steps=steps, seed=seed, threads=settings.threads)
    registry = Registry(store, settings.student)
    if dry_run:
        estimate = train_job.estimate(chosen, store, registry, dataset, parent)
        typer.echo(json.dumps({"recipe": chosen.resolved, "estimate": estimate}, indent=2))
        return
    work, tracking = local_folder(store, ".train"), tracking_of(settings, store)
    if chosen.base is not None:
        if dataset or parent or replay or out is None:
            raise InvalidInputError(f"recipe {chosen.name} begins with nothing: name a folder with --out, and no more")
        with TeacherClient(settings.teacher_url, settings.client_tls) as teacher:
            card = train_job.pretrain_by(chosen, teacher, out, work, tracking, settings.policy)
        typer.echo(json.dumps(card["probes"], indent=2))
    elif chosen.finetune is None:
        if out is not None or replay:
            raise InvalidInputError("--out and --replay are for [finetune] recipes: this one publishes into the store")
        published = train_job.train_student_by(
            chosen, store, registry, dataset, parent, work, tracking, settings.policy
        )
        typer.echo(json.dumps(published, indent=2))
    elif out is None:
        raise InvalidInputError(f"recipe {chosen.name} trains {chosen.finetune.model}: name a folder with --out")
    else:
        train_job.finetune_by(chosen, store, dataset, replay or [], out, tracking, settings.policy)
        if is_first():
            typer.echo(str(out))
