"""Decoded pictures by content: who asks ten questions about one camera image has it decoded once."""

import threading
from contextlib import suppress
from hashlib import blake2b

from cachetools import LRUCache
from PIL import Image

from student_service import metrics
from world2vlm.images import decode_image

_MAX_BYTES = 64 << 20
_BYTES_PER_PIXEL = 3


class Pictures:
    """Decodes pictures and keeps those seen last. For any number of threads.

    Args:
        max_image_bytes, max_image_pixels: of one picture, see `decode_image`.
        max_bytes: of the pictures kept, decoded.
    """

    def __init__(self, max_image_bytes: int, max_image_pixels: int, max_bytes: int = _MAX_BYTES) -> None:
        self._limits = max_image_bytes, max_image_pixels
        self._known: LRUCache[bytes, Image.Image] = LRUCache(max_bytes, getsizeof=_size)
        self._lock = threading.Lock()

    def decode(self, data: bytes) -> Image.Image:
        """The picture, RGB; not to be written to.

        Raises:
            InvalidInputError: see `decode_image`.
        """
        digest = blake2b(data, digest_size=16).digest()
        with self._lock:
            known = self._known.get(digest)
        metrics.looked_up_picture(known is not None)
        if known is not None:
            return known
        # Two who send the same new picture at once both decode it: rare, and harmless.
        image = decode_image(data, *self._limits)
        with self._lock, suppress(ValueError):  # larger than all that may be kept
            self._known[digest] = image
        return image


def _size(image: Image.Image) -> int:
    return _BYTES_PER_PIXEL * image.width * image.height
