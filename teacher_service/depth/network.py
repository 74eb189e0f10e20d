"""The tiny depth network: a U-Net from colours and rays to the logarithm of depth."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4
STRIDE = 4 * PATCH
"""Both sides of its pictures are multiples of this."""
# Depths that it can say, in metres: those of rooms.
_NEAREST, _FARTHEST = 0.2, 30.0


@dataclass(frozen=True)
class DepthNetworkConfig:
    """Sizes.

    Attributes:
        widths: channels at a quarter, an eighth and a sixteenth of the picture's sides; multiples of `groups`.
        blocks: residual blocks on each level of the way down.
        groups: of the normalisation.
    """

    widths: tuple[int, int, int] = (48, 96, 112)
    blocks: int = 2
    groups: int = 8


class DepthNetwork(nn.Module):
    """Sees a picture and the direction of each pixel's ray: the same room looks different through another lens.

    A ray's slope says where the floor is for a camera at eye level, and so how far things that stand on it are. That is
    all that its metres rest on.
    """

    def __init__(self, config: DepthNetworkConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        groups = config.groups
        self.stem = nn.Conv2d(5 * PATCH**2, fine, 3, padding=1)
        self.fine = _blocks(fine, config.blocks, groups)
        self.to_middle = nn.Conv2d(fine, middle, 2, stride=2)
        self.middle = _blocks(middle, config.blocks, groups)
        self.to_coarse = nn.Conv2d(middle, coarse, 2, stride=2)
        self.coarse = _blocks(coarse, config.blocks, groups)
        # What the whole picture says, added everywhere: the size of the room.
        self.whole = nn.Sequential(nn.Linear(coarse, coarse), nn.SiLU(), nn.Linear(coarse, coarse))
        self.middle_again = nn.Sequential(nn.Conv2d(coarse + middle, middle, 3, padding=1), _Block(middle, groups))
        self.fine_again = nn.Sequential(nn.Conv2d(middle + fine, fine, 3, padding=1), _Block(fine, groups))
        self.head = nn.Conv2d(fine, PATCH**2, 3, padding=1)

    def forward(self, colours: Tensor, rays: Tensor) -> Tensor:
        """Estimate log depth.

        Args:
            colours: (N, 3, H, W), -1 to 1; H and W are multiples of `STRIDE`.
            rays: (N, 2, H, W), x and y of the pixels' rays with z = 1.

        Returns:
            (N, H, W), the logarithm of metres along z.
        """
        fine = self.fine(self.stem(F.pixel_unshuffle(torch.cat([colours, rays], dim=1), PATCH)))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        coarse = coarse + self.whole(coarse.mean((2, 3)))[..., None, None]
        middle = self.middle_again(torch.cat([_twice(coarse), middle], dim=1))
        fine = self.fine_again(torch.cat([_twice(middle), fine], dim=1))
        # Near 1 m before training.
        log_depth = 1.0 + F.pixel_shuffle(self.head(fine).float(), PATCH)[:, 0]
        return log_depth.clamp(math.log(_NEAREST), math.log(_FARTHEST))


def load_network(folder: Path) -> DepthNetwork:
    """Load `model.safetensors` with the sizes in `config.json`, ready to estimate, in float32."""
    sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = DepthNetwork(DepthNetworkConfig(tuple(sizes["widths"]), sizes["blocks"], sizes["groups"]))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval()


class _Block(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(groups, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.inner(features)
        return changed


def _blocks(width: int, count: int, groups: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(width, groups) for _ in range(count)))


def _twice(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")
