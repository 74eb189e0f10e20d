"""`world2vlm base-student`: make the student that every first round starts from."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program's."""
    app.command()(base_student)


def base_student(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint and its card.")],
    rooms: Annotated[int, typer.Option(min=1, help="Rooms to learn from.")] = 9000,
    anchors: Annotated[int, typer.Option(min=1, help="Views of each room.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 8000,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first room.")] = 1_000_000,
    probe_rooms: Annotated[int, typer.Option(min=1, help="Held-out rooms to probe it on.")] = 200,
    probe_anchors: Annotated[int, typer.Option(min=1, help="Views of each held-out room.")] = 3,
    probe_first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first held-out room.")] = 2_000_000,
    probes: Annotated[int, typer.Option(min=1, help="Questions of each kind to probe it with.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the questions.")] = 0,
    teacher_url: Annotated[str, typer.Option(help="The teacher, host:port; default: from the settings.")] = "",
    cache: Annotated[Path, typer.Option(help="Folder for collected views.")] = Path("runs/base-views"),
) -> None:
    """Pre-train a base student from random weights: it learns to see, and is never shown motion."""
    import torch

    from trainer.base_job import Rooms, make_base_student
    from trainer.base_student import BaseConfig
    from world2vlm.clients.teacher import TeacherClient
    from world2vlm.settings import TrainerSettings
    from world2vlm.telemetry import configure_logging

    settings = TrainerSettings.load()
    configure_logging(settings.log_format, settings.log_level)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    with TeacherClient(teacher_url or settings.teacher_url, settings.client_tls) as teacher:
        card = make_base_student(
            teacher,
            BaseConfig(steps=steps, seed=seed),
            Rooms(first_seed, rooms, anchors),
            Rooms(probe_first_seed, probe_rooms, probe_anchors),
            out,
            cache,
            probes,
        )
    for kind, figures in card["probes"]["kinds"].items():
        guess = max(figures["baselines"].values())
        typer.echo(
            f"{kind}: {figures['score']:.3f} ({figures['low']:.3f} to {figures['high']:.3f}), guessing {guess:.3f}"
        )
