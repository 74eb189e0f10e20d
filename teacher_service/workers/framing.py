"""The window of a photo that a world of a fixed frame size sees."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError

_LEAST_SIDE = 16


def frame_photo(
    pixels: NDArray[np.uint8], intrinsics: Floats, width: int, height: int
) -> tuple[NDArray[np.uint8], Floats]:
    """Cut the largest window of the frame's shape around the principal point, and scale it to the frame.

    The worlds take the principal point to be the frame's centre, so it has to be: in a window that is cut around the
    photo's centre it would be wherever the camera's maker put it.

    Args:
        pixels: uint8 (H, W, 3).
        intrinsics: K, float64 (3, 3), in its pixels.
        width: of the frame.
        height: of the frame.

    Returns:
        uint8 (height, width, 3), and its K with the principal point at (width / 2, height / 2).

    Raises:
        InvalidInputError: the principal point is outside the photo, or so near its edge that no window is left.
    """
    rows, columns = pixels.shape[:2]
    cx, cy = float(intrinsics[0, 2]), float(intrinsics[1, 2])
    # Half the window's width over half the frame's: the same for the height, as pixels stay square.
    scale = min(2 * min(cx, columns - cx) / width, 2 * min(cy, rows - cy) / height)
    if scale * min(width, height) < _LEAST_SIDE:
        raise InvalidInputError(
            f"the principal point ({cx:g}, {cy:g}) is at the edge of the {columns} x {rows} photo or outside it"
        )
    half_width, half_height = scale * width / 2, scale * height / 2
    # Rounding may lead out of the photo by nothing that matters, and Pillow refuses even that.
    left, right = max(0.0, cx - half_width), min(float(columns), cx + half_width)
    top, bottom = max(0.0, cy - half_height), min(float(rows), cy + half_height)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=(left, top, right, bottom))
    framed = np.array([[intrinsics[0, 0] / scale, 0, width / 2], [0, intrinsics[1, 1] / scale, height / 2], [0, 0, 1]])
    return np.asarray(image), framed
