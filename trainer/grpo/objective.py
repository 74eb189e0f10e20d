"""GRPO's loss (DeepSeekMath, arXiv 2402.03300, equations 3 and 4; DAPO, arXiv 2503.14476, equation 8 for the clips)."""

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.grpo.config import GroupConfig

_EPSILON = 1e-4

Floats = NDArray[np.float64]


def advantages(rewards: Floats, *, standardise: bool) -> Floats:
    """How much better each answer is than its group.

    Args:
        rewards: (N, G).
        standardise: divide by each group's standard deviation, as GRPO does; without it a group whose answers hardly
            differ counts little (Dr. GRPO, arXiv 2503.20783).
    """
    better: Floats = rewards - rewards.mean(axis=1, keepdims=True)
    return better / (rewards.std(axis=1, keepdims=True) + _EPSILON) if standardise else better


def log_probabilities(logits: torch.Tensor, allowed: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Of each choice among what was allowed: (C,).

    Args:
        logits: float32 (C, vocabulary).
        allowed: bool, of the same shape.
        chosen: int64 (C,), the tokens.
    """
    logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
    return torch.log_softmax(logits, dim=-1).gather(1, chosen[:, None])[:, 0]


def choice_losses(
    config: GroupConfig,
    new: torch.Tensor,
    old: torch.Tensor | None,
    advantage: torch.Tensor,
    reference: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is to be made small of each choice, and its divergence from the reference.

    Args:
        config: clips, and the weight of the divergence.
        new: log-probabilities (C,), with gradients.
        old: the same when the answers were drawn; None: as they are now.
        advantage: (C,), of the answer that a choice belongs to.
        reference: log-probabilities (C,) that the student began with.
    """
    gains = surrogate(new, new.detach() if old is None else old, advantage, config.clip_low, config.clip_high)
    drifts = divergence(new, reference)
    return config.kl_weight * drifts - gains, drifts


def surrogate(new: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The clipped objective of each choice, to be made large.

    Args:
        new: log-probabilities (C,), with gradients.
        old: the same when the answers were drawn.
        advantage: (C,), of the answer that a choice belongs to.
        low: the ratio counts from 1 - low on,
        high: up to 1 + high.
    """
    ratio = (new - old).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def divergence(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """An unbiased estimate of the KL divergence from the reference at each choice, never negative (equation 4)."""
    difference = reference - new
    return difference.exp() - difference - 1


def mean_over_answers(values: torch.Tensor, answer: torch.Tensor, answers: int) -> torch.Tensor:
    """The mean over answers of the mean over each one's choices.

    Args:
        values: (C,).
        answer: int64 (C,), the index of each choice's answer.
        answers: how many there are; one without choices counts as 0.
    """
    counts = torch.bincount(answer, minlength=answers)
    return (values / counts[answer]).sum() / answers
