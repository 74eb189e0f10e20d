"""The depth network that comes with the package; `python -m teacher_service.training depth` makes it."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from world2vlm.cameras import Floats, pixel_rays
from world2vlm.files import sha256_file

if TYPE_CHECKING:
    from teacher_service.depth.network import DepthNetwork

WEIGHTS = Path(__file__).with_name("weights")
MODEL = "model.safetensors"
SIDE = 96
"""Pixels of the longer side of what it looks at, as in training."""


class TinyDepth:
    """A U-Net that has only ever seen procedural rooms, through lenses of 45 to 100 degrees, at eye level.

    In such rooms its metres are right within a few per cent (`card.json` beside the weights). On a photograph they are
    a guess: indoors, level and at eye level a fair one, elsewhere a poor one. Give a photo's own depth, or name a
    larger model, where it matters.

    Args:
        folder: of the weights and their configuration.
    """

    def __init__(self, folder: Path = WEIGHTS) -> None:
        self._folder = folder
        self.digest = sha256_file(folder / MODEL)

    def estimate(self, pixels: NDArray[np.uint8], intrinsics: Floats) -> NDArray[np.float32]:
        """Estimate metric depth; see `DepthEstimator.estimate`."""
        import torch

        from teacher_service.depth.network import STRIDE

        height, width = pixels.shape[:2]
        scale = SIDE / max(height, width)
        rows, columns = (max(1, round(side * scale / STRIDE)) * STRIDE for side in (height, width))
        small = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BOX), dtype=np.float32)
        # The same camera with other pixels.
        scaled = np.diag([columns / width, rows / height, 1.0]) @ intrinsics
        rays = pixel_rays(scaled, columns, rows)[..., :2]
        with torch.inference_mode():
            colours, slopes = (torch.from_numpy(np.moveaxis(each, -1, 0).copy()) for each in (small / 127.5 - 1, rays))
            log_depth = self._network(colours[None], slopes[None])
            full = torch.nn.functional.interpolate(log_depth[None], (height, width), mode="bilinear")[0, 0]
        return np.asarray(full.exp().numpy(), dtype=np.float32)

    @cached_property
    def _network(self) -> "DepthNetwork":
        from teacher_service.depth.network import load_network

        return load_network(self._folder)
