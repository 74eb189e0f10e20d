"""Pictures of a question, decoded when they are asked for: a suite may have more of them than fit into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import av
import av.error
from PIL import Image

from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image, encode_picture

T = TypeVar("T")


class Pictures(Protocol):
    """What a question shows."""

    @property
    def count(self) -> int | None:
        """How many there are; None for a video."""

    def load(self, most: int) -> tuple[Image.Image, ...]:
        """Decode them as RGB, in order; of more than `most` evenly spaced ones, the first and the last among them.

        Raises:
            InvalidInputError: one cannot be read or decoded; the text says which.
        """


@dataclass(frozen=True)
class EncodedPictures:
    """Encoded pictures that lie in the suite's file itself."""

    data: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """See `Pictures.count`."""
        return len(self.data)

    def load(self, most: int) -> tuple[Image.Image, ...]:
        """See `Pictures.load`."""
        return tuple(decode_image(data) for data in spread(self.data, most))


@dataclass(frozen=True)
class PictureFiles:
    """Pictures in files of their own."""

    paths: tuple[Path, ...]

    @property
    def count(self) -> int:
        """See `Pictures.count`."""
        return len(self.paths)

    def load(self, most: int) -> tuple[Image.Image, ...]:
        """See `Pictures.load`."""
        return tuple(_decode(path) for path in spread(self.paths, most))


@dataclass(frozen=True)
class Video:
    """Frames of a video file, evenly spaced in time."""

    path: Path

    @property
    def count(self) -> None:
        """See `Pictures.count`: a video has as many pictures as one takes."""
        return None

    def load(self, most: int) -> tuple[Image.Image, ...]:
        """See `Pictures.load`."""
        return _frames(self.path, most)


def spread(items: Sequence[T], most: int) -> tuple[T, ...]:
    """At most `most` of the items, evenly spaced, the first and the last among them (of one: the first)."""
    if len(items) <= most:
        return tuple(items)
    if most == 1:
        return (items[0],)
    return tuple(items[round(index * (len(items) - 1) / (most - 1))] for index in range(most))


def _decode(path: Path) -> Image.Image:
    try:
        return decode_image(encode_picture(path))
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: {error}") from error


# Questions are asked video by video, so the last one is all that is worth keeping.
@lru_cache(maxsize=1)
def _frames(path: Path, count: int) -> tuple[Image.Image, ...]:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return tuple(_frame_at(container, stream, time) for time in _times(stream, count))
    except (av.error.FFmpegError, IndexError) as error:
        raise InvalidInputError(f"{path}: not a video that can be read: {error}") from error


def _times(stream: av.VideoStream, count: int) -> list[int]:
    """Evenly spaced times from the first frame to the last, in the stream's own unit."""
    start, frame = stream.start_time or 0, 0
    if stream.average_rate and stream.time_base:
        frame = round(1 / (stream.average_rate * stream.time_base))
    # A stream lasts until its last frame ends, not until it begins.
    length = max(0, (stream.duration or 0) - frame)
    return [start + length * index // max(1, count - 1) for index in range(count)]


def _frame_at(container: av.container.InputContainer, stream: av.VideoStream, time: int) -> Image.Image:
    """The first frame at `time` (in the stream's own unit) or after it; the last one where there is none."""
    container.seek(time, stream=stream)
    found: av.VideoFrame | None = None
    for frame in container.decode(stream):
        found = frame
        if frame.pts is not None and frame.pts >= time:
            break
    if found is None:
        raise InvalidInputError("a video without frames")
    image: Image.Image = found.to_image()  # type: ignore[no-untyped-call]
    return image
