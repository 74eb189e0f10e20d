"""Snapshots of a run: what is trained, the optimiser's state and the step, as safetensors, replaced in one rename."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from trainer.finetune.processes import Processes, gather, scatter_like
from world2vlm.errors import PreconditionError
from world2vlm.files import canonical_json, temporary_name

_NAME = "snapshot.safetensors"
_OPTIMIZER = "optimizer"


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are trained, by the names that they have without FSDP2 and DDP."""
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            yield name.removeprefix("module."), weight


@dataclass(frozen=True)
class Progressed:
    """How far a run is: the digest of what it depends on, the steps done, and the running means."""

    run: str
    steps: int
    means: dict[str, float]


def save_state(
    folder: Path, state: Progressed, module: nn.Module, optimizer: torch.optim.Optimizer, processes: Processes
) -> None:
    """Write a run's state; the last good snapshot stays until the new one is whole.

    Args:
        folder: where snapshots are.
        state: how far the run is.
        module: what is trained.
        optimizer: its optimiser.
        processes: all of them must call this; the first writes.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in trained(module):
        tensors[name] = gather(weight)
        for key, value in optimizer.state[weight].items():
            tensors[f"{_OPTIMIZER}.{key}.{name}"] = gather(value)
    with processes.together():
        if processes.rank == 0:
            _write(folder, tensors, state)


def load_state(
    folder: Path, run: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, float]]:
    """Load the snapshot in `folder`.

    Returns:
        The steps done and the running means; (0, {}) where there is no snapshot.

    Raises:
        PreconditionError: the snapshot is another run's.
    """
    path = folder / _NAME
    if not path.exists():
        return 0, {}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        state = Progressed(**json.loads(file.metadata()["state"]))
        if state.run != run:
            raise PreconditionError(
                f"{path} belongs to a run with other settings or data: remove it, or write to another folder"
            )
        found: dict[str, list[str]] = {}
        for name in file.keys():  # noqa: SIM118
            if name.startswith(f"{_OPTIMIZER}."):
                _, key, parameter = name.split(".", 2)
                found.setdefault(parameter, []).append(key)
        for name, weight in trained(module):
            weight.copy_(scatter_like(file.get_tensor(name), weight))
            # There are none as long as no step had anything to learn from.
            for key in found.get(name, ()):
                value = file.get_tensor(f"{_OPTIMIZER}.{key}.{name}")
                # The step count is a plain scalar, whatever the weight is.
                optimizer.state[weight][key] = scatter_like(value, weight) if value.ndim else value
    return state.steps, state.means


def _write(folder: Path, tensors: dict[str, torch.Tensor], state: Progressed) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / temporary_name()
    try:
        save_file(tensors, staging, metadata={"state": canonical_json(asdict(state))})
        os.replace(staging, folder / _NAME)
    finally:
        staging.unlink(missing_ok=True)


def remove_state(folder: Path) -> None:
    """Delete the snapshot of a finished run."""
    (folder / _NAME).unlink(missing_ok=True)
