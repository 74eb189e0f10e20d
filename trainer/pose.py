"""An auxiliary loss on the vision tower: tell from the visual tokens alone how the camera moved.

The tower then says the motion where the language model can read it at once. Without it the yes/no task A4, which must
hold a claim against the motion, is learned late or not at all (docs/adr/0005). Thrown away after training.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from world2vlm.actions import Action
from world2vlm.cameras import integrate

# Metres and angles weigh alike: a turn of 30 degrees is about as visible as a metre.
_TURN_SCALE = 2.0
Pose = tuple[float, float, float, float]


def pose_target(actions: Sequence[Action]) -> Pose:
    """The last camera in the first one's frame: metres to the right and ahead, then scaled sine and cosine of yaw."""
    c2w = integrate(actions)[-1]
    yaw = math.atan2(c2w[0, 2], c2w[2, 2])
    return float(c2w[0, 3]), float(c2w[2, 3]), _TURN_SCALE * math.sin(yaw), _TURN_SCALE * math.cos(yaw)


class PoseHead(nn.Module):
    """Two layers on the mean visual token."""

    def __init__(self, width: int, seed: int = 0) -> None:
        super().__init__()
        self.auxiliary_in = nn.Linear(width, width)
        self.auxiliary_out = nn.Linear(width, 4)
        generator = torch.Generator().manual_seed(seed)
        for layer in (self.auxiliary_in, self.auxiliary_out):
            nn.init.normal_(layer.weight, std=width**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)

    def loss(self, visual: torch.Tensor, poses: Sequence[Pose | None]) -> torch.Tensor:
        """Mean absolute error over the clips whose pose is known; 0 where none is.

        Args:
            visual: (N, T, width) visual tokens.
            poses: N targets.
        """
        known = [index for index, pose in enumerate(poses) if pose is not None]
        if not known:
            return visual.new_zeros(())
        said = self.auxiliary_out(F.gelu(self.auxiliary_in(visual[known].mean(dim=1))))
        return F.l1_loss(said, visual.new_tensor([pose for pose in poses if pose is not None]))
