"""Versions that fail only once they serve: a real service takes them off by itself, and remembers why."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from student_service.app import App
from student_service.engines.base import Engine, Update
from student_service.engines.local import LocalEngine
from student_service.shadow import ANSWERS
from tests.student_kit import DEADLINE_S, png, publish, running_student, tiny_student
from world2vlm.actions import Action, Primitive
from world2vlm.checkpoints import Registry
from world2vlm.client import Student
from world2vlm.errors import InvalidInputError, World2VLMError
from world2vlm.store import Store
from world2vlm.tasks import Question

pytestmark = pytest.mark.alone

TOKENS = 4


class FailsLater(LocalEngine):
    """A student whose forward passes fail from a moment on, as on a device that has run out of memory."""

    broken = threading.Event()

    def step(self) -> list[Update]:
        if self.broken.is_set():
            raise RuntimeError("out of memory")
        return super().step()


def load(folder: Path) -> Engine:
    return (FailsLater if folder.name == "2" else LocalEngine).load(folder)


@pytest.fixture(autouse=True)
def whole() -> Iterator[None]:
    FailsLater.broken.clear()
    yield
    FailsLater.broken.clear()


@contextmanager
def on_the_second(store: Path, **settings: Any) -> Iterator[tuple[App, Student]]:
    """A service that was swapped to version 2, which still works."""
    with running_student(store, load, **settings) as (app, client):
        publish(store, tiny_student(1), "second")
        assert client.swap(2)["to"] == 2
        assert client.ask("where?", [png()], TOKENS).version == "2"
        yield app, client


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask_until_served_by(client: Student, version: str) -> int:
    """Ask again and again; returns how many questions failed before `version` answered."""
    failed = 0
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if client.ask("where?", [png()], TOKENS).version == version:
                return failed
        except World2VLMError as error:
            assert str(error).startswith("internal error")
            failed += 1
    pytest.fail(f"version {version} never answered")


def test_a_version_that_fails_its_requests_is_rolled_back_and_not_served_after_a_restart(tmp_path: Path) -> None:
    rules = {"watch_seconds": 3600.0, "watch_min_requests": 6, "watch_max_error_rate": 0.5}
    with on_the_second(tmp_path, **rules) as (app, client):
        FailsLater.broken.set()
        with ThreadPoolExecutor(3) as pool:
            failed = sum(pool.map(lambda _: ask_until_served_by(client, "1"), range(3)))
        assert failed >= 6
        wait_until(lambda: client.serving().version == 1)
        last = app.registry.history()[-1]
        assert (last.version, last.rejected) == (1, 2)
        assert last.reason.startswith("version 2 rolled back: ") and "failed by its fault" in last.reason
        with pytest.raises(World2VLMError, match="no version served before"):
            client.roll_back()
    with running_student(tmp_path, load) as (app, client):
        assert client.ask("where?", [png()], TOKENS).version == "1"
        FailsLater.broken.clear()
        assert client.swap(2)["to"] == 2, "whoever asks for it gets it again"
        assert app.registry.rejected() == set()


def test_a_version_whose_canary_fails_is_rolled_back_though_nobody_asks(tmp_path: Path) -> None:
    with on_the_second(tmp_path, watch_seconds=15.0) as (app, client):
        FailsLater.broken.set()
        wait_until(lambda: client.serving().version == 1)
        assert client.ask("where?", [png()], TOKENS).version == "1"
        assert app.registry.history()[-1].reason == "version 2 rolled back: its canary fails: out of memory"


def test_callers_bad_input_rolls_nothing_back(tmp_path: Path) -> None:
    with on_the_second(tmp_path, watch_seconds=3600.0, watch_min_requests=2, watch_max_error_rate=0.0) as (app, client):
        for _ in range(20):
            for images, question, tokens in (
                ([], "where?", TOKENS),
                ([png()[:90]], "where?", TOKENS),
                ([png()] * 2, Question("A3"), 1),  # refused by the engine itself
            ):
                with pytest.raises(InvalidInputError):
                    client.ask(question, images, tokens)
        assert client.ask("where?", [png()], TOKENS).version == "2"
        assert len(app.registry.history()) == 2


def test_nothing_is_watched_where_the_window_is_zero(tmp_path: Path) -> None:
    with on_the_second(tmp_path, watch_seconds=0.0) as (_, client):
        FailsLater.broken.set()
        for _ in range(30):
            with pytest.raises(World2VLMError, match="internal error"):
                client.ask("where?", [png()], TOKENS)
        assert client.serving().version == 2
        FailsLater.broken.clear()
        assert client.ask("where?", [png()], TOKENS).version == "2", "what was lost does not come back"


def test_a_shadowed_candidate_is_compared_and_never_heard(tmp_path: Path) -> None:
    for seed in range(2):
        publish(tmp_path, tiny_student(seed), f"seed {seed}")
    Registry(Store(tmp_path), "student").set_serving(1, "test")
    answered = ANSWERS.labels("A4", "answered")._value
    before = answered.get()
    question = Question("A4", actions=(Action(Primitive.FORWARD, 0.5),))
    with running_student(tmp_path, shadow_version=2, shadow_share=1.0) as (app, client):
        for count in range(1, 4):
            assert client.ask(question, [png(), png(150)]).version == "1"
            wait_until(lambda count=count: answered.get() == before + count)  # type: ignore[misc]
        assert client.serving().version == 1 and len(app.registry.history()) == 1
        assert client.swap(2)["to"] == 2
        assert client.ask(question, [png(), png(150)]).version == "2"
    assert answered.get() == before + 3


def test_a_candidate_that_cannot_be_shadowed_stops_nothing(tmp_path: Path) -> None:
    with running_student(tmp_path, shadow_version=9) as (app, client):
        assert app.shadow is None and client.ask("where?", [png()], TOKENS).version == "1"
