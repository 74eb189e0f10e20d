"""The client against a real server: what it takes, what it gives, and when it tries again."""

import asyncio
import itertools
import json
import re
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY

from student_service.app import App
from tests.student_kit import DEADLINE_S, TOKEN, EchoEngine, picture, png, running_student
from tests.tls_kit import Authority, make_authority, needs_openssl
from world2vlm import rpc, telemetry
from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.client import AsyncStudent, Student, StudentReply
from world2vlm.errors import (
    InvalidInputError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    World2VLMError,
)
from world2vlm.images import decode_image
from world2vlm.tasks import Question
from world2vlm.v1 import student_pb2, student_pb2_grpc

EXAMPLE = Path(__file__).parents[2] / "examples" / "ask_robot.py"
D2 = Question("D2", actions=(Action(Primitive.TURN_LEFT, 30),), object="chair", box=Box(100, 200, 300, 400))

Request = student_pb2.ReasonRequest | student_pb2.ReasonManyRequest


class Script(student_pb2_grpc.StudentServiceServicer):
    """Fails as it is told to, one error a call, and then answers; remembers what it was sent."""

    def __init__(self, *errors: World2VLMError, in_stream: bool = False) -> None:
        self.errors = list(errors)
        self.in_stream = in_stream
        self.asked_at: list[float] = []
        self.request_ids: list[str] = []
        self.images: list[bytes] = []
        self.cancelled = threading.Event()

    def _begin(self, request: Request, context: Any) -> None:
        self.asked_at.append(time.monotonic())
        self.request_ids.append(dict(context.invocation_metadata())[rpc.REQUEST_ID])
        self.images = [image.data for image in request.images]

    async def Reason(self, request: Request, context: Any) -> student_pb2.ReasonResponse:
        self._begin(request, context)
        if self.errors:
            raise self.errors.pop(0)
        return student_pb2.ReasonResponse(text="yes", yes=True, probability=0.5, checkpoint_version="7")

    async def ReasonMany(self, request: student_pb2.ReasonManyRequest, context: Any) -> student_pb2.ReasonManyResponse:
        return student_pb2.ReasonManyResponse(replies=[await self.Reason(request, context)] * len(request.questions))

    async def ReasonStream(
        self, request: student_pb2.ReasonRequest, context: Any
    ) -> AsyncIterator[student_pb2.ReasonStreamResponse]:
        self._begin(request, context)
        if self.in_stream or not self.errors:
            yield student_pb2.ReasonStreamResponse(delta="yes")
        if self.errors:
            raise self.errors.pop(0)
        if request.text == "wait":
            try:
                await asyncio.sleep(DEADLINE_S)
            finally:
                self.cancelled.set()
        yield student_pb2.ReasonStreamResponse(reply=student_pb2.ReasonResponse(text="yes", yes=True))


def server_of(script: Script, port: int = 0) -> rpc.Server:
    name = student_pb2.DESCRIPTOR.services_by_name["StudentService"].full_name
    return rpc.Server([rpc.Service(name, script, student_pb2_grpc.add_StudentServiceServicer_to_server)], port=port)


# The same questions to both clients: each returns what `ask`, `stream` and `ask_many` give.
def ask_both(url: str, **options: Any) -> Iterator[Callable[..., Any]]:
    def ask(**question: Any) -> StudentReply:
        with Student(url, **options) as student:
            return student.ask(D2, [png()], **question)

    def stream(**question: Any) -> list[str | StudentReply]:
        with Student(url, **options) as student:
            return list(student.stream(D2, [png()], **question))

    async def ask_async(**question: Any) -> StudentReply:
        async with AsyncStudent(url, **options) as student:
            return await student.ask(D2, [png()], **question)

    async def stream_async(**question: Any) -> list[str | StudentReply]:
        async with AsyncStudent(url, **options) as student:
            return [piece async for piece in student.stream(D2, [png()], **question)]

    def ask_many(**question: Any) -> list[StudentReply]:
        with Student(url, **options) as student:
            return student.ask_many([D2, "where?"], [png()], **question)

    async def ask_many_async(**question: Any) -> list[StudentReply]:
        async with AsyncStudent(url, **options) as student:
            return await student.ask_many([D2, "where?"], [png()], **question)

    yield from (ask, stream, ask_many)
    for way in (ask_async, stream_async, ask_many_async):
        yield lambda way=way, **question: asyncio.run(way(**question))


WAYS = ("ask", "stream", "ask many", "async ask", "async stream", "async ask many")


def way_of(name: str, url: str, **options: Any) -> Callable[..., Any]:
    return next(itertools.islice(ask_both(url, **options), WAYS.index(name), None))


@pytest.mark.parametrize("way", WAYS)
def test_it_tries_again_while_the_service_is_away_or_full(way: str) -> None:
    script = Script(UnavailableError("away"), OverloadedError("full", 0.2), UnavailableError("away"))
    with rpc.in_background(lambda: server_of(script)) as port:
        got = way_of(way, f"127.0.0.1:{port}")(request_id="robot-7")
    reply = got[-1] if isinstance(got, list) else got
    assert reply.yes is True and reply.request_id == "robot-7"
    # One name for all attempts, and never back before the server asked for it.
    assert script.request_ids == ["robot-7"] * 4
    assert script.asked_at[2] - script.asked_at[1] >= 0.2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", [InvalidInputError("bad"), UnauthenticatedError("who?"), World2VLMError("broken")])
def test_it_tries_nothing_else_again(way: str, error: World2VLMError) -> None:
    script = Script(error)
    with (
        rpc.in_background(lambda: server_of(script)) as port,
        pytest.raises(type(error), match=str(error).replace("?", r"\?")),
    ):
        way_of(way, f"127.0.0.1:{port}")()
    assert len(script.asked_at) == 1


@pytest.mark.parametrize("way", WAYS)
def test_it_tries_once_where_that_is_wanted(way: str) -> None:
    script = Script(UnavailableError("away"))
    with rpc.in_background(lambda: server_of(script)) as port, pytest.raises(UnavailableError, match="away"):
        way_of(way, f"127.0.0.1:{port}", retry=False)()
    assert len(script.asked_at) == 1


@pytest.mark.parametrize("way", ["stream", "async stream"])
def test_a_stream_that_has_begun_is_not_begun_again(way: str) -> None:
    script = Script(UnavailableError("away"), in_stream=True)
    with rpc.in_background(lambda: server_of(script)) as port, pytest.raises(UnavailableError, match="away"):
        way_of(way, f"127.0.0.1:{port}")()
    assert len(script.asked_at) == 1


@pytest.mark.parametrize("way", WAYS)
def test_the_deadline_holds_for_all_attempts_together(way: str) -> None:
    script = Script(*[UnavailableError("away") for _ in range(1000)])
    with rpc.in_background(lambda: server_of(script)) as port:
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="away"):
            way_of(way, f"127.0.0.1:{port}")(timeout=0.6)
        assert time.monotonic() - start < 1.5
    assert 2 <= len(script.asked_at) <= 5
    gaps = np.diff(script.asked_at)
    assert gaps[0] >= 0.05 and all(gaps[1:] >= 0.1)


def test_a_hint_beyond_the_deadline_ends_it_at_once() -> None:
    script = Script(OverloadedError("full", 5.0))
    with rpc.in_background(lambda: server_of(script)) as port, Student(f"127.0.0.1:{port}") as student:
        start = time.monotonic()
        with pytest.raises(OverloadedError) as caught:
            student.ask(D2, [png()], timeout=2)
        assert time.monotonic() - start < 1 and caught.value.retry_after_s == 5.0


def test_it_outlasts_a_restart_of_the_service() -> None:
    script = Script()
    with rpc.in_background(lambda: server_of(script)) as port:
        student = Student(f"127.0.0.1:{port}")
        assert student.ask(D2, [png()]).yes
    with student:
        restart = threading.Timer(0.5, lambda: None)
        restart.start()
        asking = threading.Thread(target=student.ask, args=(D2, [png()]))
        asking.start()
        restart.join()
        with rpc.in_background(lambda: server_of(script, port)):
            asking.join(DEADLINE_S)
    assert len(script.asked_at) == 2


def test_leaving_a_stream_stops_the_answer() -> None:
    script = Script()
    with rpc.in_background(lambda: server_of(script)) as port, Student(f"127.0.0.1:{port}") as student:
        pieces = student.stream("wait", [png()])
        assert next(pieces) == "yes"
        pieces.close()  # type: ignore[attr-defined]
        assert script.cancelled.wait(DEADLINE_S)


async def test_cancelling_a_task_stops_its_stream() -> None:
    script, server = Script(), None
    server = server_of(script)
    port = await server.start()
    async with AsyncStudent(f"127.0.0.1:{port}") as student:
        begun = asyncio.Event()

        async def listen() -> None:
            async for _ in student.stream("wait", [png()]):
                begun.set()

        task = asyncio.create_task(listen())
        await asyncio.wait_for(begun.wait(), DEADLINE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(script.cancelled.wait, DEADLINE_S)
    await server.stop(0)


def test_pictures_come_as_bytes_paths_images_or_arrays(tmp_path: Path) -> None:
    script, shown = Script(), np.asarray(picture())
    (tmp_path / "view.png").write_bytes(png())
    with rpc.in_background(lambda: server_of(script)) as port, Student(f"127.0.0.1:{port}") as student:
        for given in (png(), tmp_path / "view.png", str(tmp_path / "view.png"), picture(), shown, shown[..., 0]):
            student.ask(D2, [given])
            expected = np.repeat(given[..., None], 3, 2) if isinstance(given, np.ndarray) and given.ndim == 2 else shown
            assert np.array_equal(np.asarray(decode_image(script.images[0])), expected)
        student.ask(D2, [Image.fromarray(shown).convert("RGBA")])
        assert np.array_equal(np.asarray(decode_image(script.images[0])), shown)
        asked = len(script.asked_at)
        for bad in (shown / 255, shown[..., :2], tmp_path / "none.png"):
            with pytest.raises(InvalidInputError):
                student.ask(D2, [bad])
        with pytest.raises(TypeError, match="a question is"):
            student.ask([png()], "where?")  # type: ignore[arg-type]
        assert len(script.asked_at) == asked


@pytest.mark.parametrize(
    ("answer", "kind"), [((Action(Primitive.LEFT, 1.0),), "actions"), (Box(1, 2, 3, 4), "box"), (False, "yes")]
)
def test_an_answer_has_one_type_and_no_other_by_accident(answer: Any, kind: str) -> None:
    reply = StudentReply("text", answer, 0.5, "1", 1, 1, 0.0, 0.0, "")
    assert getattr(reply, kind) == answer
    for other in {"actions", "box", "yes"} - {kind}:
        with pytest.raises(TypeError, match="'text'"):
            getattr(reply, other)


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, Student]]:
    """A service whose student says yes to everything."""
    with running_student(tmp_path_factory.mktemp("store"), lambda folder: EchoEngine("yes")) as running:
        yield running


def test_a_question_is_counted_by_task_status_and_version(echo: tuple[App, Student]) -> None:
    def count(task: str, status: str) -> float:
        labels = {"task": task, "status": status, "version": "1"}
        return REGISTRY.get_sample_value("world2vlm_student_requests_total", labels) or 0.0

    def value(name: str) -> float:
        return REGISTRY.get_sample_value(f"world2vlm_student_{name}") or 0.0

    client = echo[1]
    before = [count("D2", "ok"), count("text", "ok"), count("D2", "invalid_input"), value("tokens_total")]
    timed = value("first_token_seconds_count"), value("tokens_per_second_count")
    client.ask(D2, [png()])
    list(client.stream("where?", [png()]))
    with pytest.raises(InvalidInputError):
        client.ask(D2, [png(), png()])
    after = [count("D2", "ok"), count("text", "ok"), count("D2", "invalid_input"), value("tokens_total")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 1, 2]
    assert value("first_token_seconds_count") == timed[0] + 1
    assert value("tokens_per_second_count") == timed[1] + 2
    assert value("queue_length") == 0
    assert REGISTRY.get_sample_value("world2vlm_student_swap_seconds_count", {"phase": "canary"})


def test_the_log_names_request_and_version(echo: tuple[App, Student], capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure_logging("json", "INFO")
    for ask in (echo[1].ask, lambda *question, **more: list(echo[1].stream(*question, **more))):
        ask(D2, [png()], request_id="robot-7")
    named = [line for line in wait_for_lines(capsys, 2) if line.get("request_id") == "robot-7"]
    assert [line["version"] for line in named] == ["1", "1"]
    assert re.fullmatch(r"/world2vlm\.v1\.StudentService/Reason: OK in [\d.]+ ms", named[0]["message"])


def wait_for_lines(capsys: pytest.CaptureFixture[str], count: int) -> list[dict[str, str]]:
    """Lines of ours on stderr; the server writes them after the caller has its answer."""
    lines: list[dict[str, str]] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(lines) < count:
        assert time.monotonic() < deadline, lines
        lines += filter(of_ours, map(json.loads, capsys.readouterr().err.splitlines()))
        time.sleep(0.01)
    return lines


def of_ours(line: dict[str, str]) -> bool:
    return line["logger"].startswith("world2vlm.")


@needs_openssl
def test_the_student_serves_with_mtls_by_its_settings(tmp_path: Path) -> None:
    ours: Authority = make_authority(tmp_path / "certificates")
    (certificate, key), (shown, shown_key) = ours.certificate("server"), ours.certificate("robot")
    with running_student(
        tmp_path / "store",
        lambda folder: EchoEngine("yes"),
        tls_cert=certificate,
        tls_key=key,
        tls_client_ca=ours.ca,
        tls_ca=ours.ca,
        tls_client_cert=shown,
        tls_client_key=shown_key,
    ) as (_, client):
        assert client.ask(D2, [png()]).yes
        for tls in (None, ours.client()):
            with Student(client.url, TOKEN, tls, retry=False) as nobody, pytest.raises(UnavailableError):
                nobody.ask(D2, [png()], timeout=2)


def test_the_example_answers_and_says_when_it_is_not_sure(echo: tuple[App, Student]) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, echo[1].url], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"yes, probability 1\.00, by version 1 in \d+ ms\nanother way: the turn would lose it\n", done.stdout
    )
    example = runpy.run_path(str(EXAMPLE))
    about = (example["camera"](), "red box", Box(100, 400, 400, 800), D2.actions)
    with rpc.in_background(lambda: server_of(Script())) as port, Student(f"127.0.0.1:{port}") as unsure:
        assert example["loses_sight"](unsure, *about) is None
    with Student("127.0.0.1:1") as nobody:
        assert example["loses_sight"](nobody, *about) is None
