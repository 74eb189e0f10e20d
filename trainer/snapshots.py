"""Snapshots of a training run: weights, optimisers' state and step, as safetensors, replaced in one rename."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from trainer.optim import StudentOptimizer

_NAME = "snapshot.safetensors"


def save_snapshot(
    folder: Path, modules: Sequence[nn.Module], optimizer: StudentOptimizer, step: int, means: dict[str, float]
) -> None:
    """Write the run's state after `step` steps; the last good snapshot stays until the new one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: weight.detach().clone() for name, weight in _weights(modules)}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.state_tensors().items()}
    staging = folder / f".{_NAME}.{os.getpid()}"
    # A step of the run may be several of the optimiser's, or none.
    counts = {"step": str(step), "optimizer_steps": str(optimizer.done)}
    save_file(tensors, staging, metadata={**counts, "means": json.dumps(means)})
    os.replace(staging, folder / _NAME)


def load_snapshot(
    folder: Path, modules: Sequence[nn.Module], optimizer: StudentOptimizer
) -> tuple[int, dict[str, float]]:
    """Load the snapshot in `folder` into the modules and their optimiser.

    Returns:
        The steps done and the running means; (0, {}) where there is no snapshot.
    """
    if not (folder / _NAME).exists():
        return 0, {}
    with safe_open(folder / _NAME, framework="pt") as file:
        metadata = file.metadata()
        step, done = int(metadata["step"]), int(metadata["optimizer_steps"])
        with torch.no_grad():
            for name, weight in _weights(modules):
                weight.copy_(file.get_tensor(name))
        names = [name.removeprefix("optimizer.") for name in file.keys() if name.startswith("optimizer.")]  # noqa: SIM118
        optimizer.load_state_tensors({name: file.get_tensor(f"optimizer.{name}") for name in names}, done)
    means: dict[str, float] = json.loads(metadata["means"])
    return step, means


def _weights(modules: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for number, module in enumerate(modules):
        for name, weight in module.named_parameters():
            yield f"{number}.{name}", weight


def remove_snapshot(folder: Path) -> None:
    """Delete the snapshot of a finished run."""
    (folder / _NAME).unlink(missing_ok=True)
