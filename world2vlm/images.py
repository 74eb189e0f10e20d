"""Images on their way in and out: encoded ones are bounded and checked before any pixel of theirs is decoded."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from world2vlm.errors import InvalidInputError

MAX_BYTES = 16 << 20
MAX_PIXELS = 40_000_000
_FORMATS = ("PNG", "JPEG", "WEBP")

# What a caller of a client may have at hand: encoded bytes, a path, a PIL image, or uint8 (height, width[, 3]) RGB.
Picture = bytes | str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


def decode_image(
    data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS, least_side: int = 0
) -> Image.Image:
    """Decode one still PNG, JPEG or WebP image to RGB, upright by its EXIF orientation.

    The size in the header is checked before pixels are decoded, so a small file cannot claim a large memory.

    Args:
        data: the encoded image.
        max_bytes: of the encoded image at most.
        max_pixels: of the decoded image at most.
        least_side: a JPEG is decoded at a half, a quarter or an eighth of its size where both sides stay so long, in
            pixels, which takes less time; 0 = at its size.

    Raises:
        InvalidInputError: empty, too large, truncated, animated, one channel of more than 8 bits, or none of the three
            formats.
    """
    image = _open(data, max_bytes, max_pixels)
    if least_side:
        image.draft(None, (least_side, least_side))
    # Pillow would cut every value off at 255.
    if image.mode.startswith(("I", "F")):
        raise InvalidInputError(f"the image has one channel of more than 8 bits ({image.mode}); send 8-bit colours")
    try:
        ImageOps.exif_transpose(image, in_place=True)
        # Already RGB it would only be copied.
        upright: Image.Image = image if image.mode == "RGB" else image.convert("RGB")
        return upright
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"the {image.format} image is broken or truncated: {error}") from error


def decode_map(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an 8-bit single-channel PNG such as an instance map or a mask: uint8 (height, width).

    Raises:
        InvalidInputError: as `decode_image`, or more than one channel.
    """
    image = _open(data, max_bytes, max_pixels)
    if image.mode != "L":
        raise InvalidInputError(f"a map must have one 8-bit channel, not mode {image.mode}")
    try:
        return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"the map is broken or truncated: {error}") from error


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (height, width, 3) or (height, width) as PNG; fast rather than small, the same bytes every time."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encode_picture(picture: Picture) -> bytes:
    """Encode a picture as PNG; encoded bytes and files stay as they are.

    Raises:
        InvalidInputError: a file can't be read, or an array is not uint8 (height, width) or (height, width, 3).
    """
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            raise InvalidInputError(f"a picture must be uint8 (height, width, 3), not {picture.dtype} {picture.shape}")
        return encode_png(picture)
    if isinstance(picture, Image.Image):
        return encode_png(np.asarray(picture.convert("RGB")))
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{picture}: cannot be read: {error.strerror}") from error


def _open(data: bytes, max_bytes: int, max_pixels: int) -> Any:
    if not data:
        raise InvalidInputError("the image is empty")
    if len(data) > max_bytes:
        raise InvalidInputError(f"the image has {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidInputError(f"the image has too many pixels; at most {max_pixels} are allowed") from error
    except UnidentifiedImageError as error:
        raise InvalidInputError(f"not a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} image") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidInputError(f"the image's header is broken: {error}") from error
    if image.width * image.height > max_pixels:
        raise InvalidInputError(
            f"the image has {image.width} x {image.height} pixels; at most {max_pixels} are allowed"
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise InvalidInputError(f"the image is an animation of {frames} frames; send one still image")
    return image
