"""What the student service's tests share: an engine that echoes, tiny checkpoints, and a registry full of them."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from PIL import Image

from student_service.app import App
from student_service.engines.base import Loader, Query, Reply, Update
from student_service.engines.loading import choose_engine
from world2vlm import rpc
from world2vlm.checkpoints import Registry
from world2vlm.client import Student
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.settings import StudentSettings
from world2vlm.store import Store

DEADLINE_S = 60.0
TOKEN = "a-token-for-tests"


class EchoEngine:
    """Answers with the question, a word a step. `gate` holds it up, `batches` tells which texts began together."""

    capacity = 4

    def __init__(self, answer: str = "") -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        self.dropped: list[int] = []
        self.serves = self.closed = False
        self._answer = answer
        self.woken = 0
        self._queries: dict[int, tuple[Query, list[str]]] = {}
        self._said: dict[int, str] = {}

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        if self.closed:
            raise RuntimeError("closed")
        if not 1 <= len(query.images) <= 2:
            raise InvalidInputError("one or two images")
        for image in query.images:
            decode_image(image)
        if not query.text.strip():
            raise InvalidInputError("the question is empty")
        assert len(self._queries) < self.capacity
        self._queries[key] = query, (self._answer or query.text).split()[:max_new_tokens]

    def drop(self, key: int) -> None:
        self.dropped.append(key)
        self._queries.pop(key, None)
        self._said.pop(key, None)

    def step(self) -> list[Update]:
        if begun := [query.text for key, (query, _) in self._queries.items() if key not in self._said]:
            self.batches.append(begun)
        self.entered.set()
        assert self.gate.wait(DEADLINE_S)
        return [self._say(key, query, words) for key, (query, words) in list(self._queries.items())]

    def _say(self, key: int, query: Query, words: list[str]) -> Update:
        said = self._said.get(key, "")
        count = len(said.split())
        piece = f" {words[count]}" if said else words[count]
        self._said[key] = said + piece
        if count + 1 < len(words):
            return Update(key, piece)
        del self._queries[key], self._said[key]
        tokens = len(query.text.split()) + len(query.images)
        return Update(key, piece, Reply(" ".join(words), 1.0, tokens, len(words)))

    def wake(self) -> None:
        self.woken += 1

    def serve(self) -> None:
        self.serves = True

    def close(self) -> None:
        self.closed = True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until it holds, and fail where it takes too long."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "too long"
        time.sleep(0.01)


def picture(shade: int = 100) -> Image.Image:
    """A picture that is not quite uniform."""
    return Image.linear_gradient("L").resize((48, 48)).point(lambda value: (value + shade) % 256).convert("RGB")


def query(text: str, images: int = 1) -> Query:
    return Query(tuple(png(50 * index) for index in range(images)), text)


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


@cache
def onnx_cache() -> Path:
    """A folder for exported graphs, for all tests of one run: an export takes a while."""
    return Path(mkdtemp(prefix="onnx-cache-"))


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
def running_student(store: Path, load: Loader | None = None, **settings: Any) -> Iterator[tuple[App, Student]]:
    """The service on a free port over `store`, and a client that has the token and never retries.

    It begins with a tiny student, on the engine that needs no export of it.
    """
    own = {"store": str(store), "port": 0, "metrics_port": -1, "control_token": TOKEN, "engine": "local", "workers": 1}
    chosen = StudentSettings.load(**{**own, **settings})
    with closing(App(chosen, load or choose_engine(chosen))) as app:
        app.start(tiny_student())
        with (
            rpc.in_background(app.make_server) as port,
            Student(f"127.0.0.1:{port}", TOKEN, chosen.client_tls, retry=False) as client,
        ):
            yield app, client
