"""The optimiser of a fine-tuning run: AdamW, its schedule, and clipping."""

import math

import torch
from torch import nn

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.processes import gather
from trainer.finetune.state import trained
from world2vlm.errors import DivergedError


def make_optimizer(config: FinetuneConfig, module: nn.Module) -> torch.optim.Optimizer:
    """AdamW on what is trained; norms and biases do not decay."""
    weights = [weight for _, weight in trained(module)]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], config.learning_rate, config.betas)


def learning_rate(config: FinetuneConfig, step: int, steps: int) -> float:
    """The rate of a step, from 0: a linear warm-up to the peak, then along a cosine towards 0, or level."""
    warm = math.ceil(config.warmup * steps)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def set_rate(config: FinetuneConfig, optimizer: torch.optim.Optimizer, step: int, steps: int) -> float:
    """Give an optimiser the rate of a step; returns it."""
    rate = learning_rate(config, step, steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def update(
    config: FinetuneConfig, module: nn.Module, optimizer: torch.optim.Optimizer, loss: float, where: str
) -> float:
    """Clip the gradients, take the optimiser's step, and forget them; returns the norm before it was clipped.

    Raises:
        DivergedError: loss or gradient is not finite; nothing was changed. The text begins with `where`.
    """
    norm = clip(config, module)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"{where}: the loss is {loss}, the gradient's norm {norm}; "
            "nothing was changed since the update before: lower learning_rate, or look at the data"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def clip(config: FinetuneConfig, module: nn.Module) -> float:
    """Scale the gradients down to the norm that is allowed, where there is one; returns what it was."""
    weights = [weight for _, weight in trained(module)]
    return gather(nn.utils.clip_grad_norm_(weights, config.clip or math.inf)).item()
