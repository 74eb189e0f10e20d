"""One process or many: who this one is, and how weights and gradients are shared with the others.

Under `torchrun` every process runs the same program; alone, nothing here costs anything.
"""

import atexit
import gc
import os
from collections.abc import Iterable, Iterator, Mapping
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
from world2vlm.errors import PreconditionError
from world2vlm.vlm.fullsize.families import Family

# Of what a process says when it fails.
_SAID_BYTES = 512


@dataclass(frozen=True)
class Processes:
    """This process among `world`, and the device it works on."""

    rank: int
    world: int
    device: torch.device

    @contextmanager
    def together(self) -> Iterator[None]:
        """Go on behind the block in all processes or in none, so that nobody waits for one that has failed.

        Within the block a process must not wait for the others.

        Raises:
            PreconditionError: another process failed within the block; the text says which, and why.
        """
        try:
            yield
        except Exception as error:
            self._failures(str(error) or type(error).__name__)
            raise
        for rank, said in self._failures("").items():
            raise PreconditionError(f"the process of rank {rank} has failed: {said}")

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over all processes by name; every process gets the same, to the last bit."""
        if self.world == 1:
            return dict(values)
        total = torch.tensor([*values.values()], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of weights that every process holds whole; a weight without one counts as 0."""
        if self.world == 1:
            return
        under_way: list[Any] = []
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            under_way.append(dist.all_reduce(weight.grad, async_op=True))
        for each in under_way:
            each.wait()

    def _failures(self, said: str) -> dict[int, str]:
        """What the processes that have failed say, by rank; "" of one that has not."""
        if self.world == 1:
            return {}
        texts = torch.zeros(self.world, _SAID_BYTES, dtype=torch.uint8)
        own = said.encode()[:_SAID_BYTES]
        texts[self.rank, : len(own)] = torch.tensor([*own], dtype=torch.uint8)
        shared = texts.to(self.device)
        dist.all_reduce(shared)
        found = [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in shared.tolist()]
        return {rank: text for rank, text in enumerate(found) if text}


def own_device() -> torch.device:
    """The device of this process: a GPU where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that `torchrun` started, for the length of the block; alone without it.

    Within another such block they are joined already, and stay so. A program has one outermost block: another one would
    find the first one's addresses in torchrun's store, and fail or wait for ever.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = own_device()
    joins = world > 1 and not dist.is_initialized()
    if joins:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_let_go, [dist.group.WORLD])
    try:
        yield Processes(rank, world, device)
    finally:
        if joins:
            dist.destroy_process_group()


def _let_go(held: list[Any]) -> None:
    """End gloo's threads, which end with the last reference to their group.

    One that drops a tensor while the interpreter shuts down would end the process with SIGABRT (pytorch#190489; Python
    3.14 is without it). The last reference is the held one: Python, which drops it, waits for the threads without the
    interpreter's lock, which they may need.
    """
    gc.collect()
    held.clear()


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
    # DTensor's caches keep every mesh for good, and a mesh its group, for torch.compile alone; see `_let_go`.
    mesh._pg_registry.clear()
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
