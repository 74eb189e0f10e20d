"""A tower's patches as one matrix product: transformers gives a convolution each patch by itself, which is slower."""

import torch
import torch.nn.functional as F
from torch import nn


class PatchConvolution(nn.Conv3d):
    """A convolution whose inputs are as large as its kernel (Qwen's towers). Weights, names and files are the same."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """From (N, channels, *kernel) to (N, out, 1, 1, 1); what is larger is convolved."""
        if patches.shape[2:] != self.kernel_size:
            return super().forward(patches)
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def patches_as_products(model: nn.Module) -> None:
    """Put it in the place of a model's convolutions over three axes."""
    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = PatchConvolution
