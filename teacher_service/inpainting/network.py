"""The tiny inpainting model: a diffusion U-Net of diffusers that sees a smooth fill and where the holes are."""

from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2
MULTIPLE = 16
"""Both sides of its pictures are multiples of this: patches of two pixels, halved three times."""
STEPS = 4
TEMPERATURE = 0.5
"""Of the noise that it starts from: whole noise becomes coloured clouds, for it knows too little of rooms."""

# Per pixel: the noisy picture, the smooth fill, and whether it was seen.
_CHANNELS = 3 + 3 + 1


def make_network(widths: tuple[int, ...] = (24, 48, 96, 96)) -> nn.Module:
    """Return the untrained network.

    Args:
        widths: channels of the levels, multiples of 8.
    """
    network: nn.Module = UNet2DModel(  # type: ignore[no-untyped-call, assignment]
        in_channels=_CHANNELS * PATCH**2,
        out_channels=3 * PATCH**2,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        norm_num_groups=8,
        attention_head_dim=16,
    )
    return network


def make_scheduler() -> Any:
    """Return a DDIM scheduler set to `STEPS` steps: it holds the state of one picture, so each picture gets its own."""
    scheduler: Any = DDIMScheduler(  # type: ignore[no-untyped-call]
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", timestep_spacing="trailing", clip_sample=True
    )
    scheduler.set_timesteps(STEPS)
    return scheduler


def predict(network: nn.Module, noisy: Tensor, filled: Tensor, seen: Tensor, timesteps: Tensor) -> Tensor:
    """Predict the clean picture.

    Args:
        network: of `make_network`.
        noisy: (N, 3, H, W).
        filled: (N, 3, H, W), -1 to 1: known pixels as they are, holes filled smoothly.
        seen: (N, 1, H, W), 1 or 0.
        timesteps: (N,).

    Returns:
        (N, 3, H, W). The network says how it differs from the smooth fill.
    """
    packed = F.pixel_unshuffle(torch.cat([noisy, filled, 2 * seen - 1], dim=1), PATCH)
    change = network(packed, timesteps, return_dict=False)[0]
    return filled + F.pixel_shuffle(change, PATCH)
