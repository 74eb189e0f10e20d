"""Any inpainting pipeline of diffusers, by folder or hub name."""

import hashlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForInpainting
from numpy.typing import NDArray
from PIL import Image

from teacher_service.hub import choose_device, digest, fetch
from teacher_service.inpainting.base import Pixels
from world2vlm.errors import InvalidInputError

# What the latent grids of diffusers' inpainting pipelines divide.
_MULTIPLE = 16


class PipelineInpainter:
    """Asks a pipeline for one picture at a time: it holds its scheduler's state.

    Args:
        name: a folder or a hub repository with safetensors weights.
        prompt: what it is told to paint.
        side: pixels of the longer side that it works at.
        steps: of the diffusion.
        device: torch device, or `auto`; bfloat16 on a GPU, float32 on the CPU.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: not an inpainting pipeline of diffusers, or no safetensors weights.
    """

    def __init__(self, name: str, prompt: str, side: int, steps: int, device: str = "auto") -> None:
        folder, device = fetch(name), choose_device(device)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            self._pipeline = AutoPipelineForInpainting.from_pretrained(  # type: ignore[no-untyped-call]
                folder, use_safetensors=True, dtype=dtype, local_files_only=True
            ).to(device)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the inpainting model {name!r} can't be loaded: {error}") from error
        self._pipeline.set_progress_bar_config(disable=True)
        self._prompt, self._side, self._steps = prompt, side, steps
        self._lock = threading.Lock()
        self.digest = hashlib.sha256(f"{digest(folder)} {prompt!r} {side} {steps}".encode()).hexdigest()

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size at which it paints, the longer side about `side` pixels; see `Inpainter.size`."""
        scale = self._side / max(width, height)
        columns, rows = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (width, height))
        return columns, rows

    def paint(
        self, filled: Pixels, seen: NDArray[np.bool_], seed: int, is_cancelled: Callable[[], bool]
    ) -> Pixels | None:
        """Paint a picture; see `Inpainter.paint`."""

        def on_step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if is_cancelled():
                raise _Cancelled
            return tensors

        height, width = seen.shape
        with self._lock:
            if is_cancelled():
                return None
            try:
                painted = self._pipeline(
                    prompt=self._prompt,
                    image=Image.fromarray(filled),
                    mask_image=Image.fromarray((~seen).astype(np.uint8) * 255),
                    width=width,
                    height=height,
                    num_inference_steps=self._steps,
                    generator=torch.Generator("cpu").manual_seed(seed),
                    callback_on_step_end=on_step_end,
                    output_type="pil",
                ).images[0]
            except _Cancelled:
                return None
        return np.asarray(painted.convert("RGB"))


class _Cancelled(Exception):
    """Leaves a pipeline: not all of them ask whether they should go on."""
