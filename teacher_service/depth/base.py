"""What the geometric world needs of a depth model."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from world2vlm.cameras import Floats


class DepthEstimator(Protocol):
    """Estimates depth. Several threads may ask at once.

    One photograph does not fix its scale: a doll's house looks like a house. Estimated metres rest on how large things
    usually are and how high cameras usually are held, so the whole of a photo's depth may well be off by a third or
    more; what is near and what is far in it is surer than either.
    """

    @property
    def digest(self) -> str:
        """Sha256 of the weights."""
        ...

    def estimate(self, pixels: NDArray[np.uint8], intrinsics: Floats) -> NDArray[np.float32]:
        """Estimate a photo's depth.

        Args:
            pixels: uint8 (height, width, 3).
            intrinsics: K, float64 (3, 3), in its pixels.

        Returns:
            float32 (height, width), metres along z, all known.
        """
        ...
