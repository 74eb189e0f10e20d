"""What the geometric world needs of an inpainting model, and how its paint gets into the holes."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class Inpainter(Protocol):
    """Paints holes. Several threads may ask at once."""

    @property
    def digest(self) -> str:
        """Sha256 of the weights and of the settings that its pictures depend on."""
        ...

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) at which it paints a picture of this size."""
        ...

    def paint(
        self, filled: Pixels, seen: NDArray[np.bool_], seed: int, is_cancelled: Callable[[], bool]
    ) -> Pixels | None:
        """Paint a picture whose size is one that `size` gives.

        Args:
            filled: uint8 (height, width, 3), its holes filled smoothly.
            seen: bool (height, width), False in the holes.
            seed: of the noise; the same seed gives the same picture.
            is_cancelled: asked before each step of the diffusion.

        Returns:
            uint8 (height, width, 3), whose seen pixels may differ from what was given; None where it was cancelled.
        """
        ...


def paint_holes(
    inpainter: Inpainter, filled: Pixels, seen: NDArray[np.bool_], seed: int, is_cancelled: Callable[[], bool]
) -> Pixels | None:
    """Paint the holes of a picture, at the model's own size, and paste back what was seen.

    Cracks that vanish at the model's size keep their smooth fill, and a picture without holes is left as it is.

    Args:
        inpainter: the model.
        filled: uint8 (height, width, 3), of any size, its holes filled smoothly.
        seen: bool (height, width), False in the holes.
        seed: of the noise.
        is_cancelled: asked before each step of the diffusion.

    Returns:
        uint8 (height, width, 3), seen pixels unchanged; None where it was cancelled.
    """
    height, width = seen.shape
    columns, rows = inpainter.size(width, height)
    small, known = filled, seen
    if (columns, rows) != (width, height):
        small = _resize(filled, columns, rows, Image.Resampling.BOX)
        # Half of a pixel known is enough: the smooth fill has mixed nothing else into the other half.
        known = _resize(seen.astype(np.uint8) * 255, columns, rows, Image.Resampling.BOX) >= 128
    if known.all():
        return filled
    painted = inpainter.paint(small, known, seed, is_cancelled)
    if painted is None:
        return None
    painted = np.where(known[..., None], small, painted)
    if (columns, rows) != (width, height):
        painted = _resize(painted, width, height, Image.Resampling.BICUBIC)
    return np.where(seen[..., None], filled, painted)


def _resize(picture: Pixels, width: int, height: int, how: Image.Resampling) -> Pixels:
    return np.asarray(Image.fromarray(picture).resize((width, height), how))
