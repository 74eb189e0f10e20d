"""Anchors from files: a photo, what is known of its camera and depth, and one sample with metric depth."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from teacher_service.worlds.base import Photo
from world2vlm.errors import InvalidInputError
from world2vlm.images import MAX_BYTES, decode_image
from world2vlm.lenses import check_fov, check_shape, intrinsics_of, says_lens, warn_of_lens

SAMPLE = "motorcycle"


def motorcycle() -> Photo:
    """Return scikit-image's `stereo_motorcycle` (Middlebury 2014), its left image at half size: 370 x 250 pixels.

    Depth is focal length x baseline / (disparity + dx), with the calibration that scikit-image documents; pixels
    without ground truth have depth 0.
    """
    from skimage.data import stereo_motorcycle

    focal, cx, cy, dx, baseline_m = 994.978, 311.193, 254.877, 31.086, 0.193001
    left, _right, disparity = stereo_motorcycle()  # type: ignore[no-untyped-call]
    halves = left[:, :740].reshape(250, 2, 370, 2, 3).mean((1, 3))
    # Every second value, not the mean of four: across an edge a mean is the depth of nothing.
    known = disparity[::2, :740:2]
    depth = np.where(np.isfinite(known), focal * baseline_m / (known + dx), 0).astype(np.float32)
    intrinsics = np.array([[focal / 2, 0, cx / 2], [0, focal / 2, cy / 2], [0, 0, 1]])
    return Photo(np.rint(halves).astype(np.uint8), intrinsics, depth)


def read_file(image: Path) -> bytes:
    """Read a photo's file.

    Raises:
        InvalidInputError: it is a folder, or cannot be read.
    """
    if image.is_dir():
        raise InvalidInputError(f"{image} is a folder: give one photo")
    try:
        return image.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {image}: {error.strerror}") from error


def warn_of_photo(image: Path) -> str:
    """What to tell the owner of a photo whose EXIF says nothing of its lens; empty where it does."""
    # Its header alone is read.
    with Image.open(image) as opened:
        return "" if says_lens(opened) else warn_of_lens(1)


def load_photo(image: Path, depth: Path | None, fov_deg: float | None, max_width: int) -> Photo:
    """Read a photo, and its depth where there is a file of it, and scale both down to `max_width` columns.

    Args:
        image: a PNG, JPEG or WebP file; it is turned upright as its EXIF says.
        depth: metres as `.npy` (height, width), or millimetres as a 16-bit `.png`; of the upright photo's shape.
        fov_deg: the camera's horizontal field of view; None = what the EXIF says, see `lenses.intrinsics_of`.
        max_width: columns; smaller photos keep their size.

    Raises:
        InvalidInputError: a file can't be read or does not fit, the photo is no pinhole camera's, or `fov_deg` is not
            between 10 and 150 degrees.
    """
    if fov_deg is not None:
        check_fov(fov_deg)
    data = read_file(image)
    try:
        pixels = decode_image(data, max_bytes=4 * MAX_BYTES)
    except InvalidInputError as error:
        raise InvalidInputError(f"{image}: {error}") from error
    width, height = pixels.size
    check_shape(width, height)
    metres = _load_depth(depth, (height, width)) if depth else None
    if width > max_width:
        height, width = max(1, round(height * max_width / width)), max_width
        pixels = pixels.resize((width, height), Image.Resampling.LANCZOS)
        metres = None if metres is None else _nearest(metres, height, width)
    intrinsics = intrinsics_of(Image.open(io.BytesIO(data)), width, height, image.name, fov_deg)
    return Photo(np.asarray(pixels), intrinsics, metres)


def _load_depth(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    try:
        if path.suffix == ".npy":
            metres = np.load(path, allow_pickle=False).astype(np.float32)
        else:
            metres = np.asarray(Image.open(path, formats=("PNG",)), dtype=np.float32) / 1000
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"cannot read the depth in {path}: {error}") from error
    if metres.shape != shape:
        raise InvalidInputError(f"the depth in {path} has shape {metres.shape}, but the photo has {shape}")
    return np.asarray(metres)


def _nearest(depth: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(int)
    return np.asarray(depth[rows[:, None], columns])
