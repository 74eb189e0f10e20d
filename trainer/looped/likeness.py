"""How alike two views are: what the search for a camera's motion goes by."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from world2vlm.vlm import StudentModel
from world2vlm.vlm.network import TorchNetwork

Likeness = Callable[[Image.Image, Sequence[Image.Image]], NDArray[np.float64]]
"""Takes the view that is looked for and N imagined ones; returns float64 (N,), higher is more alike."""

# Sides in pixels that pictures are compared at: the coarse ones draw the search near, the fine one decides.
_SIDES = (64, 16, 4)


def by_pixels(target: Image.Image, views: Sequence[Image.Image]) -> NDArray[np.float64]:
    """Minus the mean absolute difference of colours (0 to 1), the mean over three resolutions."""
    found = np.zeros(len(views))
    for side in _SIDES:
        wanted = _shrink(target, side)
        found -= [float(np.abs(_shrink(view, side) - wanted).mean()) for view in views]
    return found / len(_SIDES)


class BySight:
    """Cosine similarity of what the student's own vision tower makes of the two, a visual token at a time."""

    def __init__(self, student: StudentModel) -> None:
        self._processor = student.processor
        self._network = TorchNetwork(student.model, student.processor)

    def __call__(self, target: Image.Image, views: Sequence[Image.Image]) -> NDArray[np.float64]:
        """See `Likeness`."""
        frames = [self._processor.to_frame(view) for view in (target, *views)]
        clips = np.stack([self._processor.to_clip([frame]) for frame in frames])
        with torch.inference_mode():
            tokens = torch.nn.functional.normalize(self._network.see(clips)[0], dim=-1)
            alike = (tokens[1:] * tokens[:1]).sum(dim=-1).mean(dim=-1)
        found: NDArray[np.float64] = alike.double().cpu().numpy()
        return found


def _shrink(image: Image.Image, side: int) -> NDArray[np.float64]:
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float64) / 255
