"""Fill what the camera could not see, from what surrounds it and lies behind."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# How strongly far surroundings count more than near ones: what a near thing hid goes on behind it.
_FAR_BIAS = 8.0
# The surroundings that are compared, as a share of the image's width.
_WINDOW = 0.3
# Holes are filled from what lies at most so many pixels beside them.
_RIM = 3
# Rows of the coarsest level that still halves both sides.
_ROWS = 24

Rows = NDArray[np.float32]


def fill_holes(rgb: NDArray[np.uint8], depth: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill unseen pixels by push-pull (Gortler et al. 1996, The Lumigraph, section 3.4), weighted by depth.

    Args:
        rgb: uint8 (height, width, 3).
        depth: float32 (height, width), metres; read where `seen`.
        seen: bool (height, width).

    Returns:
        uint8 (height, width, 3); seen pixels are unchanged.
    """
    if seen.all() or not seen.any():
        return rgb
    rim = seen & ndimage.binary_dilation(~seen, iterations=_RIM)
    sources = np.where(rim, depth, 0)
    farthest = np.maximum(ndimage.maximum_filter(sources, round(_WINDOW * seen.shape[1]) | 1), 1e-6)
    weight = rim * ((sources / farthest) ** _FAR_BIAS + 1e-6)
    filled = _push_pull(rgb.astype(np.float32), weight.astype(np.float32))
    return np.where(seen[..., None], rgb, np.clip(np.rint(filled), 0, 255).astype(np.uint8))


def _push_pull(colour: Rows, weight: Rows) -> Rows:
    height, width = weight.shape
    if height == width == 1:
        return colour
    # Coarse levels halve the width alone: a level camera's wide gaps go on sideways, floor as floor, wall as wall.
    across = 2 if width > 1 else 1
    down = 2 if height > _ROWS or width == 1 else 1
    coarse = _enlarge(_push_pull(*_shrink(colour, weight, down, across)), height, width, down, across)
    # Full weight keeps a pixel's own colour; none takes the coarser level's.
    share = np.minimum(weight, 1)[..., None]
    return np.asarray(share * colour + (1 - share) * coarse, dtype=np.float32)


def _shrink(colour: Rows, weight: Rows, down: int, across: int) -> tuple[Rows, Rows]:
    height, width = weight.shape
    odd = ((0, -height % down), (0, -width % across))
    weight = np.pad(weight, odd)
    colour = np.pad(colour, (*odd, (0, 0))) * weight[..., None]
    shape = (weight.shape[0] // down, down, weight.shape[1] // across, across)
    total = weight.reshape(shape).sum((1, 3))
    mean = colour.reshape(*shape, 3).sum((1, 3)) / np.maximum(total, 1e-12)[..., None]
    return mean, total


def _enlarge(colour: Rows, height: int, width: int, down: int, across: int) -> Rows:
    rows = (np.arange(height) + 0.5) / down - 0.5
    columns = (np.arange(width) + 0.5) / across - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([ndimage.map_coordinates(colour[..., c], grid, order=1, mode="nearest") for c in range(3)], axis=-1)
