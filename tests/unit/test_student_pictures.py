"""Decoded pictures are kept by content, up to so many bytes, and checked like any other."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from student_service.pictures import Pictures
from tests.student_kit import picture, png
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image, encode_picture

SIDE = 48


def pictures(max_bytes: int = 1 << 20) -> Pictures:
    return Pictures(1 << 20, 10_000, max_bytes)


def test_the_same_bytes_are_decoded_once() -> None:
    known = pictures()
    first = known.decode(png(10))
    assert first.tobytes() == decode_image(png(10)).tobytes()
    assert known.decode(bytes(bytearray(png(10)))) is first
    assert known.decode(png(20)).tobytes() != first.tobytes()


def test_those_seen_last_are_kept() -> None:
    one = 3 * SIDE * SIDE
    known = pictures(2 * one)
    first, second = known.decode(png(10)), known.decode(png(20))
    assert known.decode(png(10)) is first
    known.decode(png(30))
    assert known.decode(png(10)) is first
    assert known.decode(png(20)) is not second


def test_what_is_larger_than_all_that_is_kept_is_decoded_all_the_same() -> None:
    known = pictures(3 * SIDE * SIDE)
    small = known.decode(png(10))
    large = encode_picture(picture().resize((90, 90)))
    assert known.decode(large) is not known.decode(large)
    assert known.decode(png(10)) is small


def test_a_bad_picture_is_refused_every_time() -> None:
    known = pictures()
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            known.decode(png(10)[: len(png(10)) // 2])
    with pytest.raises(InvalidInputError, match="pixels"):
        known.decode(encode_picture(picture().resize((200, 200))))


def test_many_threads_may_decode_at_once() -> None:
    known = pictures(5 * 3 * SIDE * SIDE)
    shades = [number % 12 * 20 for number in range(200)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda shade: known.decode(png(shade)), shades))
    for shade, image in zip(shades, images, strict=True):
        assert image.tobytes() == decode_image(png(shade)).tobytes()
