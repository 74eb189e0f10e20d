"""What both recipes share: the optimiser, the running mean of the weights, and what colours may become."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from world2vlm.errors import DivergedError
from world2vlm.telemetry import progress

_EMA_DECAY = 0.998


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        steps: of the optimiser (AdamW, one cycle of the learning rate).
        batch: pictures a step.
        lr: the highest learning rate.
        bf16: compute in bfloat16, which newer processors do about twice as fast; weights stay float32.
    """

    steps: int
    batch: int = 16
    lr: float = 2e-3
    bf16: bool = True


def fit(model: nn.Module, loss_of: Callable[[nn.Module, int], Tensor], schedule: Schedule, what: str) -> nn.Module:
    """Train `model` and return the running mean of its weights, which errs less than the last of them.

    Args:
        model: trained in place.
        loss_of: the loss of a batch of so many pictures.
        schedule: how long and how fast.
        what: for the progress.

    Raises:
        DivergedError: the loss is not finite any more.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=schedule.lr, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.lr, schedule.steps, pct_start=0.1)
    mean = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_EMA_DECAY))  # type: ignore[no-untyped-call]
    model.train()
    with progress(what, schedule.steps) as advance:
        for _ in range(schedule.steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bf16):
                loss = loss_of(model, schedule.batch)
            if not torch.isfinite(loss):
                raise DivergedError(f"the loss of {what} is {float(loss.detach())}: lower the learning rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            cycle.step()
            mean.update_parameters(model)
            advance(1)
    return mean.module.eval()


def recolour(colours: Tensor, generator: torch.Generator) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Swap the colour channels and change brightness and contrast, each picture in its own way.

    Args:
        colours: (N, 3, H, W), -1 to 1.
        generator: where the chance comes from.

    Returns:
        The changed pictures, and a function that changes others of the same views alike.
    """
    count = len(colours)
    order = torch.rand(count, 3, generator=generator).argsort(1)
    gamma = torch.exp(0.25 * torch.randn(count, 1, 1, 1, generator=generator))
    gain = 1 - 0.3 * torch.rand(count, 1, 1, 1, generator=generator)

    def change(pictures: Tensor) -> Tensor:
        swapped = torch.gather(pictures, 1, order[..., None, None].expand_as(pictures))
        return gain * ((swapped + 1) / 2).clamp(0, 1) ** gamma * 2 - 1

    return change(colours), change
