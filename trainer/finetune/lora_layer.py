"""PEFT's LoRA layer with less to read and write: it scales what is between its matrices, not what comes after them.

PEFT computes W x + s * B (A x) in three passes over the output, in mixed precision from a float32 copy of the input.
Here it is one product that adds to W x, and no copy. Weights, names and files are PEFT's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear


class LoraLinear(Linear):
    """A linear layer with one plain adapter (Hu et al. 2021, equation 3), for training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (..., in) to (..., out)."""
        (name,) = self.active_adapters
        down: Any = self.lora_A[name]
        up: Any = self.lora_B[name]
        base: Any = self.base_layer
        wide: torch.Tensor = base(x)
        narrow = F.linear(self.lora_dropout[name](x), down.weight) * self.scaling[name]
        return torch.addmm(wide.flatten(0, -2), narrow.flatten(0, -2), up.weight.t()).view(wide.shape)
