"""Requests that nobody should send: a seeded mutator of ReasonRequests, from single bits to whole fields."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from PIL import Image

from world2vlm.v1 import spatial_pb2, student_pb2

Request = student_pb2.ReasonRequest
_TEXTS = (
    "",
    " \t\n",
    "\x00",
    "a" * 70_000,
    "word " * 600,
    "\u202e\u0301" * 300,
    "🧭" * 400,
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "../../etc/passwd",
    "{object} %s {0.__class__}",
    "\ufeff\uffff",
)
_NUMBERS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 5e-324, 1e308, 1e18, 0.1)
_WHOLE = (0, 1, 64, 65, 999, 1000, 1001, 2**31 - 1, 2**32 - 1)
_HEADERS = (
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    b"GIF89a",
    b"BM",
    b"%PDF-1.7",
)


class Mutator:
    """Makes bad requests out of good ones; the same seed makes the same.

    Args:
        seeds: good requests, serialised.
        seed: of the choices.
    """

    def __init__(self, seeds: Sequence[bytes], seed: int) -> None:
        self._seeds = list(seeds)
        self._random = random.Random(seed)
        self._ways: list[Callable[[bytes], bytes]] = [
            self._flip_bits,
            self._cut,
            self._splice,
            self._insert,
            self._noise,
            self._field(self._spoil_picture),
            self._field(self._odd_picture),
            self._field(self._odd_picture),
            self._field(self._count_pictures),
            self._field(self._spoil_text),
            self._field(self._spoil_task),
            self._field(self._spoil_task),
            self._field(self._spoil_limit),
        ]

    def make(self) -> bytes:
        """The next request: one to three changes to a good one."""
        message = self._random.choice(self._seeds)
        for _ in range(self._random.choice((1, 1, 1, 2, 3))):
            message = self._random.choice(self._ways)(message)
        return message

    def _flip_bits(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self._random.choice((1, 1, 2, 8, 64)) if data else 0):
            # The first bytes hold the fields' tags and lengths; most of the rest is picture.
            reach = len(changed) if self._random.random() < 0.5 else min(len(changed), 64)
            changed[self._random.randrange(reach)] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data) + 1)]

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._seeds)
        return data[: self._random.randrange(len(data) + 1)] + other[self._random.randrange(len(other) + 1) :]

    def _insert(self, data: bytes) -> bytes:
        at = self._random.randrange(len(data) + 1)
        return data[:at] + self._random.randbytes(self._random.choice((1, 4, 1000))) + data[at:]

    def _noise(self, _: bytes) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 2, 30, 5000)))

    def _field(self, spoil: Callable[[Request], None]) -> Callable[[bytes], bytes]:
        def change(data: bytes) -> bytes:
            try:
                request = Request.FromString(data)
            except Exception:  # spoiled before: another good one
                request = Request.FromString(self._random.choice(self._seeds))
            spoil(request)
            return request.SerializeToString()

        return change

    def _spoil_picture(self, request: Request) -> None:
        if not request.images:
            request.images.add()
        image = self._random.choice(request.images)
        ways: list[Callable[[bytes], bytes]] = [
            self._flip_bits,
            self._cut,
            self._insert,
            lambda _: self._random.choice(_HEADERS) + self._random.randbytes(self._random.choice((0, 10, 500))),
            lambda _: _png(*(self._random.choice((0, 1, 70_000, 2**31 - 1)) for _ in range(2))),
            lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
        ]
        image.data = self._random.choice(ways)(image.data)

    def _odd_picture(self, request: Request) -> None:
        for image in request.images or [request.images.add()]:
            # Bits that flip in a PNG break its checksum; in the others they make another picture.
            data = self._random.choice(_odd_pictures())
            image.data = self._flip_bits(data) if self._random.random() < 0.3 else data

    def _count_pictures(self, request: Request) -> None:
        count = self._random.choice((0, 1, 3, 50))
        data = request.images[0].data if request.images else b""
        del request.images[:]
        request.images.extend(spatial_pb2.Image(data=data) for _ in range(count))

    def _spoil_text(self, request: Request) -> None:
        text = self._random.choice(_TEXTS)
        if request.WhichOneof("question") == "task" and self._random.random() < 0.5:
            request.task.object = text
        else:
            request.text = text

    def _spoil_task(self, request: Request) -> None:
        task: Any = request.task
        match self._random.randrange(6):
            case 0:
                task.task = self._random.randrange(-1, 12)
            case 1:
                for action in task.actions or [task.actions.add()]:
                    action.magnitude = self._random.choice(_NUMBERS)
            case 2:
                task.actions.add(primitive=self._random.randrange(-1, 9), magnitude=self._random.choice(_NUMBERS))
            case 3:
                box = self._random.choice((task.box, task.second_box))
                for corner in ("x1", "y1", "x2", "y2"):
                    setattr(box, corner, self._random.choice(_WHOLE))
            case 4:
                del task.actions[:]
                task.ClearField(self._random.choice(("box", "second_box", "object")))
            case _:
                for _ in range(2000):
                    task.actions.add(primitive=1, magnitude=0.5)

    def _spoil_limit(self, request: Request) -> None:
        request.max_new_tokens = self._random.choice(_WHOLE)


@cache
def _odd_pictures() -> tuple[bytes, ...]:
    """Whole pictures of kinds that cameras rarely send."""
    noise = random.Random(0)
    kinds = [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    kinds += [("JPEG", mode) for mode in ("L", "RGB", "CMYK")] + [("WEBP", mode) for mode in ("RGB", "RGBA")]
    sizes = ((1, 1), (1, 3000), (3000, 1), (48, 48), (97, 31))
    pictures = []
    for width, height in sizes:
        base = Image.frombytes("L", (width, height), noise.randbytes(width * height))
        for form, mode in kinds:
            buffer = io.BytesIO()
            base.convert(mode).save(buffer, form)
            pictures.append(buffer.getvalue())
    for form in ("PNG", "WEBP"):
        buffer = io.BytesIO()
        base.save(buffer, form, save_all=True, append_images=[base.rotate(90)], duration=50)
        pictures.append(buffer.getvalue())
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        base.save(buffer, "JPEG", exif=exif)
        pictures.append(buffer.getvalue())
    return tuple(pictures)


def _png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing of it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
