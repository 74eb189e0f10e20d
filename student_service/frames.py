"""Pictures as the student sees them, by content: who asks ten questions about one camera image has it read once."""

from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache
from PIL import Image

from world2vlm.images import decode_image

# Each way, of a JPEG that is decoded smaller: photographs of 640 x 480 pixels then give frames of 96 that differ by 0.3
# of 255 levels on average from those of all their pixels, in half of the time.
_PIXELS_PER_PIXEL = 2


class _Sized(Protocol):
    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        ...


Frame = TypeVar("Frame", bound=_Sized)


class Frames(Generic[Frame]):
    """Decodes and resizes pictures, and keeps those seen last. Not thread-safe.

    Args:
        to_frame: makes of an RGB picture what the student reads.
        max_image_bytes, max_image_pixels: of one picture, see `decode_image`.
        max_bytes: of the frames kept.
        side: of the frames, in pixels; 0 where it depends on the picture.
    """

    def __init__(
        self,
        to_frame: Callable[[Image.Image], Frame],
        max_image_bytes: int,
        max_image_pixels: int,
        max_bytes: int,
        side: int = 0,
    ) -> None:
        self._to_frame = to_frame
        self._limits = max_image_bytes, max_image_pixels, _PIXELS_PER_PIXEL * side
        self._known: LRUCache[bytes, Frame] = LRUCache(max_bytes, getsizeof=lambda frame: frame.nbytes)

    def read(self, data: bytes) -> tuple[Frame, bool]:
        """The frame of an encoded picture, not to be written to, and whether it was known.

        Raises:
            InvalidInputError: see `decode_image`.
        """
        digest = sha256(data).digest()
        known = self._known.get(digest)
        if known is not None:
            return known, True
        frame = self._to_frame(decode_image(data, *self._limits))
        with suppress(ValueError):  # larger than all that may be kept
            self._known[digest] = frame
        return frame, False
