"""Pictures as gates look at them: small, grey, and compared only where both show the same thing."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from world2vlm.cameras import Floats, pixel_rays

Grey = NDArray[np.float32]

BAND = 4.0
"""Standard deviation in pixels: what is finer counts as detail, at any working size."""


@dataclass(frozen=True)
class Picture:
    """A view at a gate's working size.

    Attributes:
        grey: float32 (height, width), 0 to 255.
        intrinsics: K, float64 (3, 3), in its pixels.
    """

    grey: Grey
    intrinsics: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.grey.shape
        return height, width

    @property
    def detail(self) -> "Picture":
        """The same without its broad shades, which look alike from everywhere."""
        return Picture(self.grey - cv2.GaussianBlur(self.grey, (0, 0), BAND), self.intrinsics)


def shrink(pixels: NDArray[np.uint8], intrinsics: Floats, side: int) -> Picture:
    """Return a picture whose longer side has at most `side` pixels.

    Args:
        pixels: uint8 (height, width, 3).
        intrinsics: K in its pixels.
        side: pixels; smaller pictures keep their size.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size, scaled = fit(grey.shape, intrinsics, side)
    return Picture(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)), scaled)


def fit(shape: tuple[int, ...], intrinsics: Floats, side: int) -> tuple[tuple[int, int], Floats]:
    """Return (width, height) of a picture (height, width, ...) with at most `side` pixels a side, and its K."""
    height, width = shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return size, np.diag([size[0] / width, size[1] / height, 1.0]) @ intrinsics


def turned(reference: Picture, frame: Picture, rotations: Floats) -> tuple[Grey, NDArray[np.bool_]]:
    """Show a reference as cameras see it that stand where it was taken: the homography K R K^-1.

    Args:
        reference: what is warped.
        frame: gives size and intrinsics of the views.
        rotations: float64 (N, 3, 3), each from a view's camera to the reference's.

    Returns:
        (grey, inside), each (N, height, width); `inside` is False where the reference does not reach.
    """
    height, width = frame.shape
    rays = pixel_rays(frame.intrinsics, width, height).reshape(-1, 3)
    matrices = (reference.intrinsics @ rotations).astype(np.float32)
    x, y, z = (rays @ matrices[:, row].T for row in range(3))
    ahead = np.maximum(z, np.float32(1e-3))
    columns, rows = x / ahead - np.float32(0.5), y / ahead - np.float32(0.5)
    limits = np.array(reference.shape[::-1]) - 1
    inside = (z > 1e-3) & (columns >= 0) & (columns <= limits[0]) & (rows >= 0) & (rows <= limits[1])
    grey = cv2.remap(
        reference.grey,
        np.ascontiguousarray(columns),
        np.ascontiguousarray(rows),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    views = (len(rotations), height, width)
    return np.asarray(grey, dtype=np.float32).T.reshape(views), np.asarray(inside.T.reshape(views), dtype=np.bool_)


def correlations(views: Grey, frame: Grey, inside: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return how each view and the frame vary together where the view is known, whatever the exposure.

    Args:
        views: float32 (N, height, width).
        frame: float32 (height, width).
        inside: bool (N, height, width).

    Returns:
        (correlation, share), float64 (N,): Pearson's coefficient, 0 where nothing varies, and the share of pixels
        that it is about.
    """
    known = inside.reshape(len(views), -1).astype(np.float32)
    mine, theirs = views.reshape(len(views), -1) * known, frame.reshape(1, -1) * known
    count = np.maximum(known.sum(1), 1)
    mean, other = mine.sum(1) / count, theirs.sum(1) / count
    together = np.einsum("ij,ij->i", mine, theirs) / count - mean * other
    spread = np.einsum("ij,ij->i", mine, mine) / count - mean**2
    reach = np.einsum("ij,ij->i", theirs, theirs) / count - other**2
    # Grey values are whole numbers: below a hundredth of one nothing varies.
    product = np.sqrt(np.maximum(spread, 1e-4) * np.maximum(reach, 1e-4))
    return np.asarray(together / product, dtype=np.float64), np.asarray(known.mean(1), dtype=np.float64)
