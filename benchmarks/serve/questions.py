"""What everybody is asked: typed questions of the eight tasks and free text, about rendered pairs of views."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.rooms import find_trajectories, imagine
from student_service.engines.base import Query
from teacher_service.worlds.renderer import RendererWorld
from trainer.labelling import label
from world2vlm.bundles import Bundle, read_bundle, write_bundle
from world2vlm.convert import question_to_proto
from world2vlm.demo.load import typed_question
from world2vlm.images import decode_image, encode_png
from world2vlm.tasks import Question
from world2vlm.v1 import spatial_pb2, student_pb2
from world2vlm.vlm import Prompt

# Each so many-th question is asked as free text, in the same words.
_FREE = 9
_NOISE = 3
_QUALITY = 90


@dataclass(frozen=True)
class Item:
    """One question with its encoded pictures, oldest first; `task` is empty where it is asked as free text."""

    question: Question
    images: tuple[bytes, ...]
    task: str

    @property
    def text(self) -> str:
        """The question in words."""
        return self.question.text

    @property
    def query(self) -> Query:
        """The question as an engine takes it."""
        return Query(self.images, self.text, self.task)

    @property
    def prompt(self) -> Prompt:
        """The question as the model takes it."""
        return Prompt(tuple(decode_image(data) for data in self.images), self.text, self.task)

    def message(self, *, typed: bool = True) -> bytes:
        """The request, serialised; with `typed` false as free text."""
        asked = self.asked() if typed else {"text": self.text}
        return student_pb2.ReasonRequest(images=self.views(), **asked).SerializeToString()

    def asked(self) -> dict[str, Any]:
        """The question as a request's field."""
        return {"task": question_to_proto(self.question)} if self.task else {"text": self.text}

    def views(self) -> list[spatial_pb2.Image]:
        """The pictures as a request's field."""
        return [spatial_pb2.Image(data=data) for data in self.images]


def message_of_all(items: Sequence[Item]) -> bytes:
    """One request with all questions, which are about the same pictures, serialised."""
    questions = [student_pb2.AskedQuestion(**item.asked()) for item in items]
    return student_pb2.ReasonManyRequest(images=items[0].views(), questions=questions).SerializeToString()


def make_items(rooms: int, each: int) -> list[Item]:
    """The questions that a round would ask about trajectories through procedural rooms, in a fixed random order."""
    world = RendererWorld(cache=rooms)
    items = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for found in find_trajectories(world, rooms, each):
            shown = tuple(imagine(world, found.scene, found.candidate))
            bundle = Bundle(f"room_{found.scene}", f"{found.number:03d}", shown)
            for record in label(read_bundle(write_bundle(root, bundle)), seed=0):
                pictures = tuple((root / path).read_bytes() for path in record.images)
                items.append(Item(typed_question(record), pictures, record.task_type))
    order = np.random.default_rng(0).permutation(len(items))
    chosen = [items[index] for index in order]
    return [
        Item(item.question, item.images, "" if number % _FREE == _FREE - 1 else item.task)
        for number, item in enumerate(chosen)
    ]


def with_own_pictures(
    items: Sequence[Item], count: int, seed: int = 0, frame: tuple[int, int] | None = None
) -> list[Item]:
    """`count` questions, the given ones in turn, none of which has pictures that another one has: no cache helps.

    With `frame` pictures are of so many pixels, width and height, and JPEG, as a camera sends them.
    """
    rng = np.random.default_rng(seed)

    def grain(data: bytes) -> bytes:
        image = decode_image(data)
        pixels = np.asarray(image.resize(frame) if frame else image).astype(np.int16)
        noisy = (pixels + rng.integers(-_NOISE, _NOISE + 1, pixels.shape)).clip(0, 255).astype(np.uint8)
        if frame is None:
            return encode_png(noisy)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()

    chosen = (items[index % len(items)] for index in range(count))
    return [Item(item.question, tuple(map(grain, item.images)), item.task) for item in chosen]
