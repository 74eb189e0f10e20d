from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from teacher_service.photos import load_photo, motorcycle, warn_of_photo
from world2vlm.errors import InvalidInputError

DEPTH = np.linspace(1, 3, 60 * 40, dtype=np.float32).reshape(40, 60)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8)).save(path)
    np.save(tmp_path / "depth.npy", DEPTH)
    Image.fromarray(np.rint(DEPTH * 1000).astype(np.uint16)).save(tmp_path / "depth.png")
    return path


def test_the_motorcycle_has_the_documented_calibration() -> None:
    sample = motorcycle()
    assert (sample.pixels.shape, sample.depth.shape) == ((250, 370, 3), (250, 370))
    known = sample.depth > 0
    assert 0.9 < known.mean() < 0.95
    # 994.978 x 0.193001 / (disparity + 31.086) for the disparities 59.9 and 7.2.
    assert sample.depth[known].min() == pytest.approx(2.11, abs=0.01)
    assert sample.depth.max() == pytest.approx(5.02, abs=0.02)
    assert sample.intrinsics[0, 0] == 497.489


@pytest.mark.parametrize("name", ["depth.npy", "depth.png"])
def test_depth_comes_in_metres_or_millimetres(photo: Path, name: str) -> None:
    loaded = load_photo(photo, photo.with_name(name), 60, 640)
    assert loaded.pixels.shape == (40, 60, 3)
    assert np.allclose(loaded.depth, DEPTH, atol=6e-4)
    assert loaded.intrinsics[0, 0] == pytest.approx(30 / np.tan(np.radians(30)))


def test_wide_photos_are_scaled_down_with_their_depth_and_intrinsics(photo: Path) -> None:
    loaded = load_photo(photo, photo.with_name("depth.npy"), 60, 30)
    assert (loaded.pixels.shape, loaded.depth.shape) == ((20, 30, 3), (20, 30))
    assert np.array_equal(loaded.depth, DEPTH[1::2, 1::2])
    assert loaded.intrinsics[0, 2] == 15


def test_files_that_do_not_fit_are_named(photo: Path, tmp_path: Path) -> None:
    assert load_photo(photo, None, 60, 640).depth is None
    np.save(tmp_path / "small.npy", DEPTH[:10])
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    for depth in ("small.npy", "object.npy", "none.npy"):
        with pytest.raises(InvalidInputError, match=depth):
            load_photo(photo, tmp_path / depth, 60, 640)
    with pytest.raises(InvalidInputError, match=r"none\.png"):
        load_photo(tmp_path / "none.png", None, 60, 640)


def test_the_lens_is_what_the_exif_says_unless_it_is_given(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[Base.Orientation.value] = 6
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm.value] = 24
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (60, 40)).save(path, exif=exif)
    upright = load_photo(path, None, None, 20)
    assert upright.pixels.shape == (30, 20, 3)
    # The diagonal of 20 x 30 pixels, by that of film.
    assert upright.intrinsics[0, 0] == pytest.approx(24 * np.hypot(20, 30) / np.hypot(24, 36))
    assert load_photo(path, None, 90, 20).intrinsics[0, 0] == pytest.approx(10)


def test_without_exif_the_field_of_view_is_54_degrees(photo: Path) -> None:
    assert load_photo(photo, None, None, 640).intrinsics[0, 0] == pytest.approx(30 / np.tan(np.radians(27)))


@pytest.mark.parametrize("fov", [0, 9, 151, -60, float("nan")])
def test_a_field_of_view_that_no_photo_has_is_refused(photo: Path, fov: float) -> None:
    with pytest.raises(InvalidInputError, match="10 to 150 degrees"):
        load_photo(photo, None, fov, 640)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_pictures_that_are_no_plain_photo_are_converted_or_refused_by_name(tmp_path: Path) -> None:
    cmyk = saved(Image.new("RGB", (60, 40), (200, 30, 60)).convert("CMYK"), tmp_path / "cmyk.jpg", quality=95)
    assert np.allclose(load_photo(cmyk, None, 60, 640).pixels, (200, 30, 60), atol=3)
    deep = saved(Image.fromarray(np.full((40, 60), 30000, np.uint16)), tmp_path / "deep.png")
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    moving = saved(frames[0], tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    wide, dot = (saved(Image.new("RGB", size), tmp_path / f"{size}.png") for size in ((601, 200), (60, 15)))
    for path, reason in ((deep, "8 bits"), (moving, "animation"), (wide, "panorama"), (dot, "16 pixels")):
        with pytest.raises(InvalidInputError, match=reason):
            load_photo(path, None, None, 640)


def test_what_is_no_photo_is_named(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "fake.jpg").write_text("no picture")
    with pytest.raises(InvalidInputError, match=r"fake\.jpg: "):
        load_photo(tmp_path / "fake.jpg", None, None, 640)
    with pytest.raises(InvalidInputError, match="is a folder: give one photo"):
        load_photo(tmp_path, None, None, 640)
    assert "54 degrees" in warn_of_photo(photo)
