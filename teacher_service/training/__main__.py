"""`python -m teacher_service.training`: make the small networks that the geometric world comes with."""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from teacher_service.depth import tiny as tiny_depth
from teacher_service.inpainting import tiny as tiny_inpainting

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


class _Network(StrEnum):
    DEPTH = "depth"
    INPAINT = "inpaint"


@app.command()
def train(
    which: Annotated[_Network, typer.Argument(help="What to train.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the weights and their card; the package's own.")] = None,
    rooms: Annotated[int, typer.Option(min=0, help="Rooms to learn from; 0 = the recipe's.")] = 0,
    steps: Annotated[int, typer.Option(min=0, help="Optimiser steps; 0 = the recipe's.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the first weights and of the batches.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Numeric threads.")] = 1,
) -> None:
    """Train a small network on procedural rooms: ten minutes (depth) or twelve (inpaint) on one core."""
    from teacher_service.training.cards import write_weights
    from teacher_service.training.depth import DepthRecipe, train_depth
    from teacher_service.training.inpaint import InpaintRecipe, train_inpaint

    network: Any
    if which is _Network.DEPTH:
        own: Any = tiny_depth
        recipe = _scaled(DepthRecipe(seed=seed), rooms, steps, threads)
        network, figures = train_depth(recipe)
        config = asdict(recipe.network)
    else:
        own = tiny_inpainting
        recipe = _scaled(InpaintRecipe(seed=seed), rooms, steps, threads)
        network, figures = train_inpaint(recipe)
        config = {"_class_name": "UNet2DModel", **dict(network.config)}
    folder = out or own.WEIGHTS
    card = write_weights(folder, own.MODEL, network, config, recipe, figures)
    held_out = ", ".join(f"{name} {value:.3f}" for name, value in card["held_out"].items())
    typer.echo(f"{folder}: {card['weights']['parameters']:,} parameters; held out: {held_out}")


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


if __name__ == "__main__":
    app()
