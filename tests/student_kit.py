"""What the student service's tests share: an engine that echoes, tiny checkpoints, and a registry full of them."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import Image

from student_service.app import App, choose_engine
from student_service.engines.base import Loader, Query, Reply
from world2vlm import rpc
from world2vlm.checkpoints import Registry
from world2vlm.clients.student import StudentClient
from world2vlm.errors import InvalidInputError
from world2vlm.settings import StudentSettings
from world2vlm.store import Store

DEADLINE_S = 60.0
TOKEN = "a-token-for-tests"


class EchoEngine:
    """Answers with the question, word by word. `gate` holds it up, `batches` tells what it was asked together."""

    def __init__(self, answer: str = "") -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        self.closed = False
        self._answer = answer

    def answer(
        self, queries: Sequence[Query], max_new_tokens: int, on_text: Callable[[int, str], None] | None = None
    ) -> list[Reply]:
        if self.closed:
            raise RuntimeError("closed")
        self.batches.append([query.text for query in queries])
        self.entered.set()
        assert self.gate.wait(DEADLINE_S)
        if any(not 1 <= len(query.images) <= 2 for query in queries):
            raise InvalidInputError("one or two images")
        return [self._echo(index, query, max_new_tokens, on_text) for index, query in enumerate(queries)]

    def _echo(self, index: int, query: Query, max_new_tokens: int, on_text: Callable[[int, str], None] | None) -> Reply:
        words = (self._answer or query.text).split()[:max_new_tokens]
        for position, word in enumerate(words):
            if on_text is not None:
                on_text(index, f" {word}" if position else word)
        return Reply(" ".join(words), 1.0, self.count_tokens(query.text) + len(query.images), len(words))

    def count_tokens(self, text: str) -> int:
        if not text.strip():
            raise InvalidInputError("the question is empty")
        return len(text.split())

    def close(self) -> None:
        self.closed = True


def picture(shade: int = 100) -> Image.Image:
    """A picture that is not quite uniform."""
    return Image.linear_gradient("L").resize((48, 48)).point(lambda value: (value + shade) % 256).convert("RGB")


def query(text: str, images: int = 1) -> Query:
    return Query(tuple(picture(50 * index) for index in range(images)), text)


@cache
def tiny_student(seed: int = 0) -> Path:
    """A folder with a real, tiny student of random weights."""
    from world2vlm.vlm import StudentConfig, build_student

    folder = Path(mkdtemp(prefix="tiny-student-"))
    sizes = StudentConfig(
        frame_size=32, patch_size=8, merge_size=2, vision_layers=1, text_layers=1, vision_width=32, text_width=32
    )
    build_student(sizes, seed).save(folder)
    return folder


def publish(store: Path, folder: Path, key: str) -> int:
    """Publish a folder as the next version of `student`."""
    manifest = Registry(Store(store), "student").publish(
        folder, parent=None, kind="full", dataset_digest="", recipe="test", metrics={}, key=key
    )
    return manifest.version


def png(shade: int = 100) -> bytes:
    """A picture as a client sends it."""
    buffer = io.BytesIO()
    picture(shade).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def running_student(store: Path, load: Loader | None = None, **settings: Any) -> Iterator[tuple[App, StudentClient]]:
    """The service on a free port over `store`, and a client that has the token. It begins with a tiny student."""
    chosen = StudentSettings.load(store=str(store), port=0, metrics_port=-1, control_token=TOKEN, threads=1, **settings)
    with closing(App(chosen, load or choose_engine(chosen))) as app:
        app.swapper.start(tiny_student())
        with (
            rpc.in_background(app.make_server) as port,
            StudentClient(f"127.0.0.1:{port}", TOKEN) as client,
        ):
            yield app, client
