"""Decoded pictures by content: who asks ten questions about one camera image has it decoded once."""

import threading
from collections import OrderedDict
from hashlib import blake2b

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
        self._max_bytes = max_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def decode(self, data: bytes) -> Image.Image:
        """The picture, RGB; not to be written to.

        Raises:
            InvalidInputError: see `decode_image`.
        """
        digest = blake2b(data, digest_size=16).digest()
        with self._lock:
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
        metrics.looked_up_picture(known is not None)
        if known is not None:
            return known
        # Two who send the same new picture at once both decode it: rare, and harmless.
        image = decode_image(data, *self._limits)
        self._keep(digest, image)
        return image

    def _keep(self, digest: bytes, image: Image.Image) -> None:
        if _size(image) > self._max_bytes:
            return
        with self._lock:
            if digest not in self._known:
                self._known[digest] = image
                self._bytes += _size(image)
            while self._bytes > self._max_bytes:
                _, dropped = self._known.popitem(last=False)
                self._bytes -= _size(dropped)


def _size(image: Image.Image) -> int:
    return _BYTES_PER_PIXEL * image.width * image.height
