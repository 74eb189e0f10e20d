"""Commands about checkpoints: list, verify, promote, roll back, evaluate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from world2vlm.checkpoints import Registry
    from world2vlm.settings import TrainerSettings

checkpoints = typer.Typer(help="Checkpoints: list, verify, promote, roll back.", no_args_is_help=True)
Version = Annotated[int, typer.Argument(help="A checkpoint's version.")]


@checkpoints.command("list")
def list_all() -> None:
    """List all checkpoints; `*` marks the one that serves."""
    registry = _registry(_settings())
    serving = registry.serving()
    for manifest in registry.list():
        mark = "*" if manifest.version == serving else " "
        typer.echo(
            f"{mark} {manifest.version}\tparent {manifest.parent or '-'}\t{manifest.kind}\t{manifest.recipe}\t"
            f"{manifest.created}\t{manifest.digest[:12]}"
        )


@checkpoints.command()
def verify(version: Version) -> None:
    """Compare every byte of a checkpoint with its manifest."""
    manifest = _registry(_settings()).verify(version)
    typer.echo(f"version {version}: {len(manifest.files)} files agree with the manifest {manifest.digest}")


@checkpoints.command()
def promote(version: Version) -> None:
    """Have the student service serve a version."""
    from trainer.services import StudentControl

    typer.echo(json.dumps(StudentControl(_settings()).swap(version)))


@checkpoints.command()
def rollback() -> None:
    """Have the student service serve what served before."""
    from trainer.services import StudentControl

    typer.echo(json.dumps(StudentControl(_settings()).roll_back()))


def evaluate(
    checkpoint: Annotated[int, typer.Option(metavar="VERSION", help="The checkpoint to evaluate.")],
    benchmark: Annotated[str, typer.Option(help="Which questions: held-out.")] = "held-out",
    dataset: Annotated[str, typer.Option(metavar="DIGEST", help="Whose held-out questions; default: its own.")] = "",
    out: Annotated[Path | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Ask a checkpoint held-out questions and print its scores with their intervals and baselines."""
    from trainer.evaluating import evaluate_checkpoint
    from trainer.evaluation import markdown
    from world2vlm.store import Store

    settings = _settings()
    rows, figures = evaluate_checkpoint(Store(settings.store), _registry(settings), checkpoint, benchmark, dataset)
    typer.echo(markdown(rows), nl=False)
    if out is not None:
        out.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def _settings() -> "TrainerSettings":
    from world2vlm.settings import TrainerSettings

    return TrainerSettings.load()


def _registry(settings: "TrainerSettings") -> "Registry":
    from world2vlm.checkpoints import Registry
    from world2vlm.store import Store

    return Registry(Store(settings.store), settings.student)
