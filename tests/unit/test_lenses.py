"""What EXIF says of a lens becomes K, and nonsense does not."""

import io
import logging
import math
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from world2vlm.lenses import intrinsics_of

WIDTH, HEIGHT = 90, 60


def photo(size: tuple[int, int] = (WIDTH, HEIGHT), **tags: Any) -> Image.Image:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif).update({getattr(Base, name).value: value for name, value in tags.items()})
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, "JPEG", exif=exif)
    return Image.open(buffer)


def fov(image: Image.Image, width: int = WIDTH, height: int = HEIGHT) -> float:
    intrinsics = intrinsics_of(image, width, height, "photo.jpg")
    assert (intrinsics[0, 2], intrinsics[1, 2]) == (width / 2, height / 2)
    assert intrinsics[0, 0] == intrinsics[1, 1]
    return 2 * math.degrees(math.atan(width / 2 / intrinsics[0, 0]))


def test_a_35_mm_equivalent_is_by_the_diagonal() -> None:
    # On a frame of 3 to 2, as film's, that is the same as by its 36 mm.
    assert fov(photo(FocalLengthIn35mmFilm=24)) == pytest.approx(2 * math.degrees(math.atan(18 / 24)))
    # A telephone's 4 to 3, upright and scaled down after it was taken.
    f = 26 / math.hypot(36, 24) * math.hypot(75, 100)
    upright = intrinsics_of(photo((400, 300), FocalLengthIn35mmFilm=26), 75, 100, "photo.jpg")
    assert upright[0, 0] == pytest.approx(f)


@pytest.mark.parametrize(("unit", "density"), [(2, 2540.0), (None, 2540.0), (3, 1000.0), (4, 100.0)])
def test_a_focal_length_and_the_sensor_s_density_do_as_well(unit: int | None, density: float) -> None:
    # 100 pixels a millimetre, 9,000 pixels taken: a sensor of 90 mm behind 45 mm.
    tags = {"FocalLength": IFDRational(45), "FocalPlaneXResolution": density, "FocalPlaneResolutionUnit": unit}
    given = {name: value for name, value in tags.items() if value is not None}
    assert fov(photo(**given, ExifImageWidth=9000, ExifImageHeight=6000)) == pytest.approx(90)


@pytest.mark.parametrize(
    "tags",
    [
        {"FocalLengthIn35mmFilm": 1},
        {"FocalLengthIn35mmFilm": 60000},
        {"FocalLength": IFDRational(0, 0), "FocalPlaneXResolution": 100.0},
        {"FocalLength": IFDRational(50), "FocalPlaneXResolution": 0.0},
        {"FocalLength": IFDRational(50), "FocalPlaneXResolution": 1e30},
    ],
)
def test_nonsense_falls_back_and_is_logged(tags: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert fov(photo(**tags)) == pytest.approx(54)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "photo.jpg makes no sense" in caplog.text


@pytest.mark.parametrize("tags", [{}, {"FocalLength": IFDRational(50)}, {"FocalPlaneXResolution": 100.0}])
def test_too_little_falls_back_without_a_warning(tags: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert fov(photo(**tags)) == pytest.approx(54)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_tags_fall_back_or_are_read_all_the_same() -> None:
    whole = photo(FocalLengthIn35mmFilm=24).info["exif"]
    for length in range(6, len(whole)):
        buffer = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT)).save(buffer, "JPEG", exif=whole[:length])
        assert fov(Image.open(buffer)) in (pytest.approx(54), pytest.approx(73.7398))
