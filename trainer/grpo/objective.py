"""GRPO's loss (DeepSeekMath, arXiv 2402.03300, equations 3 and 4; DAPO, arXiv 2503.14476, equation 8 for the clips)."""

import numpy as np
import torch
from numpy.typing import NDArray

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
