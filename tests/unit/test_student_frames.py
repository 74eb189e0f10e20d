"""Frames are kept by their pictures' content, up to so many bytes, and pictures are checked like any other."""

import io

import numpy as np
import pytest
from PIL import Image

from student_service.frames import Frame, Frames
from tests.student_kit import picture, png
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image, encode_picture

SIDE = 48


def as_it_is(image: Image.Image) -> Frame:
    return np.asarray(image)


def frames(max_bytes: int = 1 << 20) -> Frames:
    return Frames(as_it_is, 1 << 20, 10_000, max_bytes)


def test_the_same_bytes_are_read_once() -> None:
    known = frames()
    first, was_known = known.read(png(10))
    assert not was_known
    assert first.tobytes() == decode_image(png(10)).tobytes()
    again, was_known = known.read(bytes(bytearray(png(10))))
    assert was_known and again is first
    assert known.read(png(20))[0].tobytes() != first.tobytes()


def test_those_seen_last_are_kept() -> None:
    known = frames(2 * 3 * SIDE * SIDE)
    for shade in (10, 20, 10, 30):
        known.read(png(shade))
    assert [known.read(png(shade))[1] for shade in (10, 30, 20)] == [True, True, False]


def test_what_is_larger_than_all_that_is_kept_is_read_all_the_same() -> None:
    known = frames(3 * SIDE * SIDE)
    known.read(png(10))
    large = encode_picture(picture().resize((90, 90)))
    assert [known.read(large)[1] for _ in range(2)] == [False, False]
    assert known.read(large)[0].shape == (90, 90, 3)
    assert known.read(png(10))[1]


def test_a_bad_picture_is_refused_every_time() -> None:
    known = frames()
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            known.read(png(10)[: len(png(10)) // 2])
    with pytest.raises(InvalidInputError, match="pixels"):
        known.read(encode_picture(picture().resize((200, 200))))


def test_a_camera_s_picture_gives_the_frame_that_all_its_pixels_give() -> None:
    camera = picture().resize((640, 480), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    camera.save(buffer, "JPEG", quality=90)
    seen: list[tuple[int, int]] = []

    def to_frame(image: Image.Image) -> Frame:
        seen.append(image.size)
        return np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC))

    whole, less = (
        Frames(to_frame, 1 << 20, 1 << 20, 1 << 20, side).read(buffer.getvalue())[0].astype(int) for side in (0, 96)
    )
    assert seen == [(640, 480), (320, 240)]
    assert np.abs(whole - less).mean() < 0.5
