"""`python -m teacher_service.training`: make the small networks that the geometric world comes with."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from teacher_service.depth import tiny as tiny_depth
from teacher_service.inpainting import tiny as tiny_inpainting

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)

_Rooms = Annotated[int, typer.Option(min=0, help="Rooms to learn from; 0 = the recipe's.")]
_Steps = Annotated[int, typer.Option(min=0, help="Optimiser steps; 0 = the recipe's.")]
_Seed = Annotated[int, typer.Option(help="Of the first weights and of the batches.")]
_Threads = Annotated[int, typer.Option(min=1, help="Numeric threads.")]
_Out = Annotated[Path, typer.Option(help="Folder for the weights and their card.")]


@app.command()
def depth(
    out: _Out = tiny_depth.WEIGHTS,
    rooms: _Rooms = 0,
    steps: _Steps = 0,
    seed: _Seed = 0,
    threads: _Threads = 1,
) -> None:
    """Train the tiny depth network on procedural rooms: about ten minutes on one core."""
    from teacher_service.training.cards import write_weights
    from teacher_service.training.depth import DepthRecipe, train_depth

    recipe = _scaled(DepthRecipe(seed=seed), rooms, steps, threads)
    network, figures = train_depth(recipe)
    _tell(write_weights(out, tiny_depth.MODEL, network, asdict(recipe.network), recipe, figures), out)


@app.command()
def inpaint(
    out: _Out = tiny_inpainting.WEIGHTS,
    rooms: _Rooms = 0,
    steps: _Steps = 0,
    seed: _Seed = 0,
    threads: _Threads = 1,
) -> None:
    """Train the tiny inpainting model on procedural rooms: about twelve minutes on one core."""
    from teacher_service.training.cards import write_weights
    from teacher_service.training.inpaint import InpaintRecipe, train_inpaint

    recipe = _scaled(InpaintRecipe(seed=seed), rooms, steps, threads)
    network, figures = train_inpaint(recipe)
    config: dict[str, Any] = {"_class_name": "UNet2DModel", **dict(network.config)}  # type: ignore[arg-type]
    _tell(write_weights(out, tiny_inpainting.MODEL, network, config, recipe, figures), out)


def _scaled(recipe: Any, rooms: int, steps: int, threads: int) -> Any:
    """The recipe with other numbers of rooms and steps, where they are given."""
    import torch

    from world2vlm.telemetry import configure_logging

    configure_logging()
    torch.set_num_threads(threads)
    if rooms:
        held_out = replace(recipe.held_out, count=min(rooms, recipe.held_out.count))
        recipe = replace(recipe, rooms=replace(recipe.rooms, count=rooms), held_out=held_out)
    if steps:
        recipe = replace(recipe, schedule=replace(recipe.schedule, steps=steps))
    return recipe


def _tell(card: dict[str, Any], out: Path) -> None:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in card["held_out"].items())
    typer.echo(f"{out}: {card['weights']['parameters']:,} parameters; held out: {figures}")


if __name__ == "__main__":
    app()
