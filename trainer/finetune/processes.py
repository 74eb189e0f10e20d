"""One process or many: who this one is, and how weights and gradients are shared with the others.

Under `torchrun` every process runs the same program; alone, nothing here costs anything.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.loss import RowLoss
from world2vlm.vlm.fullsize.families import Family


@dataclass(frozen=True)
class Processes:
    """This process among `world`, and the device it works on."""

    rank: int
    world: int
    device: torch.device

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, value: torch.Tensor) -> float:
        """The sum of a scalar over all processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value.item()


def own_device() -> torch.device:
    """The device of this process: a GPU where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that `torchrun` started, for the length of the block; alone without it."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = own_device()
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(rank, world, device)
    finally:
        if world > 1:
            dist.destroy_process_group()


def distribute(loss: RowLoss, config: FinetuneConfig, family: Family, processes: Processes) -> nn.Module:
    """Share a model with the other processes: its layers' weights in parts (FSDP2), or whole (DDP).

    Vision tower and head are in one group with the rest: how often the tower is run differs between processes, and only
    what each of them does equally often may wait for the others.
    """
    if processes.world == 1:
        return loss
    if not config.shard:
        # Towers have layers after the one whose output is used.
        return DistributedDataParallel(loss, find_unused_parameters=not config.freeze_vision)
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if config.dtype == "bf16" else None, reduce_dtype=torch.float32
    )
    for layer in loss.model.model.get_submodule(family.language).layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(loss, mesh=mesh, mp_policy=policy)
    return loss


@contextmanager
def gradients_kept(module: nn.Module, kept: bool) -> Iterator[None]:
    """Keep gradients to oneself for the length of the block, where more rows of the same step follow."""
    if kept and isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            module.set_requires_gradient_sync(True)
        return
    with module.no_sync() if kept and isinstance(module, DistributedDataParallel) else nullcontext():
        yield


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """A weight or a gradient as a whole, on the CPU; all processes must ask for it."""
    whole: Any = tensor.detach()
    return (whole.full_tensor() if isinstance(whole, DTensor) else whole).cpu()


def scatter_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor as this process holds it of another one."""
    moved = whole.to(like.device)
    return distribute_tensor(moved, like.device_mesh, like.placements) if isinstance(like, DTensor) else moved
