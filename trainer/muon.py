"""Muon in float32.

torch's own computes in bfloat16, which a processor without instructions for it emulates: on one with AVX2 alone a step
of the built-in student's 37 matrices took 950 ms so, and 34 ms in float32.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch

# Of the quintic iteration, and how often it runs: Keller Jordan's, https://kellerjordan.github.io/posts/muon/
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_EPSILON = 1e-7


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with Nesterov's look ahead and decoupled weight decay (arXiv 2502.16982, algorithm 1).

    The update grows with the square root of rows over columns where there are more rows, as in Jordan's own.

    Args:
        matrices: parameters, all of two dimensions.
        lr: learning rate.
        weight_decay: share of a weight that is lost in a step, times the rate.
        momentum: share of the mean gradient that is kept.
    """

    def __init__(
        self, matrices: Iterable[torch.Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Change the matrices that have gradients."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._change(matrix, group)

    def _change(self, matrix: torch.Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = orthogonalised(gradient.lerp(mean, group["momentum"]))
        rows, columns = matrix.shape
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with about the same singular vectors, whose singular values all are about 1, by Newton and Schulz.

    Args:
        matrix: float32 (rows, columns).

    Returns:
        float32 (rows, columns); singular values that were not tiny beside the largest lie between about 0.7 and 1.2.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    found: torch.Tensor = wide / wide.norm().clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), found, beta=_A)
    return found.T if wide is not matrix else found
