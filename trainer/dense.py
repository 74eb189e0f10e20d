"""The dense auxiliary loss that lets a tiny student learn to see (used in pre-training only, then thrown away).

A linear head on every merged visual token says, for each of its patches in both frames: the colour, the category and
the box of the object that covers the patch, or that there is none. Without it grounding is not learned in CPU time.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from trainer.perception import CATEGORIES, COLOURS
from world2vlm.boxes import SCALE
from world2vlm.bundles import ObjectView

MIN_COVER = 0.2  # share of a patch
_CHANNELS = (len(COLOURS) + 1, len(CATEGORIES), 4)


def patch_targets(instances: NDArray[np.uint8], views: Sequence[ObjectView], grid: int) -> NDArray[np.float32]:
    """Targets of one frame.

    Args:
        instances: uint8 (S, S) instance ids, S a multiple of `grid`.
        views: the objects in view.
        grid: patches along a side.

    Returns:
        float32 (grid * grid, 6) in raster order: colour + 1 (0 = nothing), category, and the box in 0-1.
    """
    side = instances.shape[0] // grid
    cells = instances.reshape(grid, side, grid, side).transpose(0, 2, 1, 3).reshape(grid * grid, side * side)
    targets = np.zeros((grid * grid, 6), dtype=np.float32)
    best = np.full(grid * grid, MIN_COVER * side * side)
    for view in views:
        cover = (cells == view.instance_id).sum(axis=1)
        mine = cover >= best
        best = np.where(mine, cover, best)
        box = [corner / SCALE for corner in view.box.corners]
        targets[mine] = [COLOURS.index(view.colour) + 1, CATEGORIES.index(view.category), *box]
    return targets


class DenseHead(nn.Module):
    """Predicts the patch targets from merged visual tokens."""

    def __init__(self, width: int, patches_per_token: int) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(width, patches_per_token * 2 * sum(_CHANNELS))
        nn.init.normal_(self.auxiliary.weight, std=0.02)
        nn.init.zeros_(self.auxiliary.bias)

    def loss(self, visual: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Compare with the targets.

        Args:
            visual: (N, T, width) merged visual tokens.
            targets: (N, P, 2, 6), patches in Qwen's order, both frames.

        Returns:
            The loss (colour + half category + 4 x box L1) and the share of covered patches whose colour is right.
        """
        count, patches = targets.shape[:2]
        colour, category, box = self.auxiliary(visual).view(count, patches, 2, -1).split(_CHANNELS, dim=-1)
        truth = targets[..., 0].long()
        loss = F.cross_entropy(colour.flatten(0, 2), truth.flatten())
        covered = truth > 0
        if covered.any():
            loss = loss + 0.5 * F.cross_entropy(category[covered], targets[..., 1].long()[covered])
            loss = loss + 4.0 * F.l1_loss(box[covered], targets[..., 2:][covered])
        right = (colour.argmax(dim=-1) == truth)[covered].float().mean() if covered.any() else torch.tensor(0.0)
        return loss, float(right)
