"""The optimiser of a fine-tuning run: AdamW, its schedule, and clipping."""

import math

import torch
from torch import nn

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.processes import gather
from trainer.finetune.state import trained


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


def clip(config: FinetuneConfig, module: nn.Module) -> float:
    """Scale the gradients down to the norm that is allowed, where there is one; returns what it was."""
    weights = [weight for _, weight in trained(module)]
    return gather(nn.utils.clip_grad_norm_(weights, config.clip or math.inf)).item()
