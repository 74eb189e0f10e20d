"""A user's folder of photographs, for tests: crops of real panoramas, each panorama one place."""

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from benchmarks.teach.panoramas import FOLDER, load_panorama
from world2vlm.cameras import intrinsics_from_fov, yaw_matrix

PLACES = tuple(sorted(path.stem for path in FOLDER.glob("*.jpg")))
SIDE = 160
FILM_MM = 15
"""Of the crops' 90 degrees, as EXIF has it."""


def save_crop(path: Path, place: str, yaw_deg: float) -> None:
    """A photograph as a camera saves it, with its lens in the EXIF."""
    pixels = load_panorama(FOLDER / f"{place}.jpg").view(
        yaw_matrix(yaw_deg), intrinsics_from_fov(90, SIDE, SIDE), (SIDE, SIDE)
    )
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = FILM_MM
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, exif=exif)


def save_places(folder: Path, each: int = 2) -> Path:
    """`each` photographs of every place, a sub-folder a place."""
    for place in PLACES:
        for index in range(each):
            save_crop(folder / place / f"{index}.jpg", place, 90.0 * index)
    return folder


def save_flat(path: Path, shade: int, size: tuple[int, int] = (32, 24)) -> None:
    """A small photograph that shows nothing, with its shade for an identity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), shade, np.uint8)).save(path)
