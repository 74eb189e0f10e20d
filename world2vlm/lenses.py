"""What a photograph must be to have been taken through one lens, and what its EXIF says of that lens."""

import logging
import math
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

from world2vlm.cameras import Floats, intrinsics_from_fov
from world2vlm.errors import InvalidInputError

log = logging.getLogger(__name__)

DEFAULT_FOV_DEG = 54.0
"""Horizontal, where nothing else is known: World2VLM's own."""
LEAST_FOV_DEG, MOST_FOV_DEG = 10.0, 150.0
MIN_SIDE = 16
MAX_ASPECT = 3.0

_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
# Millimetres in FocalPlaneResolutionUnit: inches (also where it is not said), centimetres, millimetres, micrometres.
_UNITS_MM = {1: 25.4, 2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


def check_shape(width: int, height: int) -> None:
    """Refuse what no single pinhole camera took, or what is too small to show anything.

    Raises:
        InvalidInputError: a panorama, or a side under 16 pixels.
    """
    if min(width, height) < MIN_SIDE:
        raise InvalidInputError(f"a photo must have at least {MIN_SIDE} pixels a side, not {width} x {height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidInputError(
            f"a photo of {width} x {height} pixels looks like a panorama, which no pinhole camera takes; cut out "
            f"a piece of at most {MAX_ASPECT:g} to 1"
        )


def check_fov(fov_deg: float) -> None:
    """Refuse a horizontal field of view that is no camera's.

    Raises:
        InvalidInputError: not between 10 and 150 degrees.
    """
    if not LEAST_FOV_DEG <= fov_deg <= MOST_FOV_DEG:
        raise InvalidInputError(
            f"a photo's field of view must be {LEAST_FOV_DEG:g} to {MOST_FOV_DEG:g} degrees, not {fov_deg:g}"
        )


def intrinsics_of(image: Image.Image, width: int, height: int, name: str, fov_deg: float | None = None) -> Floats:
    """K of a photo by its EXIF, or of `DEFAULT_FOV_DEG` where that says nothing or makes no sense (which is logged).

    Args:
        image: as opened, before it is turned upright.
        width: columns of the photo that K is for, upright.
        height: its rows.
        name: for the log.
        fov_deg: the horizontal field of view where the caller knows it; the EXIF is not asked then.

    Returns:
        K, float64 (3, 3), square pixels, the principal point in the centre.
    """
    if fov_deg is not None:
        return intrinsics_from_fov(fov_deg, width, height)
    focal_share = _focal_share(image)
    if focal_share is None:
        log.info("%s says nothing of its lens: %g degrees are assumed", name, DEFAULT_FOV_DEG)
        return intrinsics_from_fov(DEFAULT_FOV_DEG, width, height)
    focal = focal_share * math.hypot(width, height)
    fov = 2 * math.degrees(math.atan2(width, 2 * focal))
    if not LEAST_FOV_DEG <= fov <= MOST_FOV_DEG:
        log.warning(
            "the EXIF of %s makes no sense (a field of view of %.3g degrees): %g are assumed",
            name,
            fov,
            DEFAULT_FOV_DEG,
        )
        fov = DEFAULT_FOV_DEG
    return intrinsics_from_fov(fov, width, height)


def says_lens(image: Image.Image) -> bool:
    """Whether a photo's EXIF says anything of its lens."""
    return _focal_share(image) is not None


def warn_of_lens(photos: int) -> str:
    """What to tell the owner of photographs whose EXIF says nothing of their lens."""
    return (
        f"{photos} photograph(s) say nothing of their lens: {DEFAULT_FOV_DEG:g} degrees from left to right are "
        f"assumed, and turns are wrong where that is wrong; --fov says what is right"
    )


def _focal_share(image: Image.Image) -> float | None:
    """The focal length as a share of the picture's diagonal, which neither scaling nor turning changes."""
    try:
        tags = image.getexif().get_ifd(IFD.Exif)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):
        # Broken tags; Pillow raises whatever its readers of them stumble over.
        return 0.0
    film = _number(tags, Base.FocalLengthIn35mmFilm)
    if film:
        # CIPA DCG-001: the equivalent is by the angle of the diagonal.
        return film / _FILM_DIAGONAL_MM
    focal, density = _number(tags, Base.FocalLength), _number(tags, Base.FocalPlaneXResolution)
    if focal is None or density is None:
        return None
    unit = _UNITS_MM.get(int(_number(tags, Base.FocalPlaneResolutionUnit) or 2), 25.4)
    width = _number(tags, Base.ExifImageWidth) or image.width
    height = _number(tags, Base.ExifImageHeight) or image.height
    return focal * density / unit / max(math.hypot(width, height), 1e-9)


def _number(tags: Any, tag: int) -> float | None:
    """A tag's value; 0 where it is there and is no positive number."""
    if tag not in tags:
        return None
    try:
        value = float(tags[tag])
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
