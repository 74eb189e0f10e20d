"""The inpainting model that comes with the package; `python -m teacher_service.training inpaint` makes it."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from teacher_service.inpainting.base import Pixels
from world2vlm.files import sha256_file

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).with_name("weights")
MODEL = "diffusion_pytorch_model.safetensors"
SIDE = 128
"""Pixels of the longer side that it paints at most: larger pictures are painted coarsely and scaled up."""


class TinyInpainter:
    """A diffusion U-Net that has only ever seen procedural rooms: four DDIM steps from noise.

    It goes on with what it sees: floors, walls, the rest of a thing. It does not know what photographs show.

    Args:
        folder: of the weights and their configuration, as diffusers writes them.
    """

    def __init__(self, folder: Path = WEIGHTS) -> None:
        self._folder = folder
        self.digest = sha256_file(folder / MODEL)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size at which it paints; see `Inpainter.size`."""
        from teacher_service.inpainting.network import MULTIPLE

        scale = min(1.0, SIDE / max(width, height))
        columns, rows = (max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in (width, height))
        return columns, rows

    def paint(
        self, filled: Pixels, seen: NDArray[np.bool_], seed: int, is_cancelled: Callable[[], bool]
    ) -> Pixels | None:
        """Paint a picture; see `Inpainter.paint`."""
        import torch

        from teacher_service.inpainting.network import TEMPERATURE, make_scheduler, predict

        scheduler = make_scheduler()
        with torch.inference_mode():
            start = torch.from_numpy(np.moveaxis(filled, -1, 0).copy())[None] / 127.5 - 1
            known = torch.from_numpy(seen).float()[None, None]
            generator = torch.Generator().manual_seed(seed)
            picture = TEMPERATURE * torch.randn(start.shape, generator=generator)
            for step in scheduler.timesteps:
                if is_cancelled():
                    return None
                clean = predict(self._network, picture, start, known, step[None])
                picture = scheduler.step(clean, step, picture).prev_sample
            levels = ((picture[0] + 1) * 127.5).round().clamp(0, 255).byte()
        return np.asarray(levels.permute(1, 2, 0).numpy())

    @cached_property
    def _network(self) -> "nn.Module":
        import torch
        from diffusers import UNet2DModel

        network: nn.Module = UNet2DModel.from_pretrained(  # type: ignore[no-untyped-call]
            self._folder, use_safetensors=True, dtype=torch.float32, local_files_only=True
        )
        return network.eval()
