import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image, decode_map, encode_png

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header says that it is huge."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_png_round_trip_is_exact_and_the_same_every_time() -> None:
    data = encode_png(PIXELS)
    assert np.array_equal(np.asarray(decode_image(data)), PIXELS)
    assert data == encode_png(PIXELS.copy())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_all_formats_come_out_as_rgb(kind: str, mode: str) -> None:
    image = decode_image(encoded(Image.fromarray(PIXELS).convert(mode), kind))
    assert (image.mode, image.size) == ("RGB", (30, 20))


def test_more_than_eight_bits_are_refused_and_not_cut_off() -> None:
    with pytest.raises(InvalidInputError, match="more than 8 bits"):
        decode_image(encoded(Image.fromarray(np.full((20, 30), 40_000, np.uint16)), "PNG"))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(Image.fromarray(PIXELS), "JPEG", exif=exif)).size == (20, 30)


SMOOTH = Image.fromarray(PIXELS).resize((640, 480), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("side", "size"), [(0, (640, 480)), (481, (640, 480)), (240, (320, 240)), (121, (320, 240)), (60, (80, 60))]
)
def test_no_more_of_a_jpeg_is_decoded_than_is_needed(side: int, size: tuple[int, int]) -> None:
    data = encoded(SMOOTH, "JPEG", quality=95)
    decoded = decode_image(data, least_side=side)
    assert decoded.size == size
    small = [np.asarray(each.resize((40, 30), Image.Resampling.BICUBIC), float) for each in (decoded, SMOOTH)]
    assert np.abs(small[0] - small[1]).mean() < 2
    with pytest.raises(InvalidInputError, match="broken"):
        decode_image(data[: len(data) // 2], least_side=side)


def test_a_smaller_jpeg_is_upright_too_and_a_png_is_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(SMOOTH, "JPEG", exif=exif), least_side=100).size == (120, 160)
    assert decode_image(encoded(SMOOTH, "PNG"), least_side=100).size == (640, 480)


@pytest.mark.parametrize(
    ("size", "pixels"), [((8000, 8000), 40_000_000), ((20000, 10000), 40_000_000), ((30, 20), 599)]
)
def test_the_size_is_checked_before_the_pixels(size: tuple[int, int], pixels: int) -> None:
    with pytest.raises(InvalidInputError, match=str(pixels)):
        decode_image(png_of_claimed_size(*size), max_pixels=pixels)


FRAMES: Sequence[Image.Image] = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"not an image at all", "not a PNG"),
        (encoded(Image.fromarray(PIXELS), "GIF"), "not a PNG"),
        (encode_png(PIXELS)[:-60], "broken or truncated"),
        (encoded(Image.fromarray(PIXELS), "JPEG")[:300], "broken"),
        (encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "animation"),
        (encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "animation"),
    ],
)
def test_bad_images_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        decode_image(data)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most 100"):
        decode_image(encode_png(PIXELS), max_bytes=100)


def test_maps_round_trip_and_have_one_channel() -> None:
    assert np.array_equal(decode_map(encode_png(PIXELS[..., 0])), PIXELS[..., 0])
    with pytest.raises(InvalidInputError, match="one 8-bit channel"):
        decode_map(encode_png(PIXELS))
    with pytest.raises(InvalidInputError, match="truncated"):
        decode_map(encode_png(PIXELS[..., 0])[:-60])
