"""KServe v2 on the student's port: what an unmodified tritonclient gets, and each status that it may get instead."""

import asyncio
import json
import queue
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as aio_triton
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from student_service import canary
from student_service.app import App
from student_service.engines.base import Query
from student_service.engines.loading import choose_engine
from student_service.kserve.questions import read_question
from tests.student_kit import DEADLINE_S, TOKEN, EchoEngine, png, publish, running_student, tiny_student
from world2vlm import rpc
from world2vlm.client import Student
from world2vlm.errors import PreconditionError
from world2vlm.health import is_serving
from world2vlm.settings import StudentSettings
from world2vlm.tasks import TASKS, Question

PAIR = (png(100), png(150))
HEADERS = {"authorization": f"Bearer {TOKEN}"}
QUESTIONS = {question.task: question for question in canary.canary_questions()}
OUTPUTS = {
    "TEXT": "BYTES", "ANSWER": "BYTES", "PROBABILITY": "FP32", "VERSION": "INT64", "PROMPT_TOKENS": "INT32",
    "ANSWER_TOKENS": "INT32", "QUEUE_MS": "FP32", "GENERATE_MS": "FP32",
}  # fmt: skip
INPUTS = {"IMAGES": "BYTES", "QUESTION": "BYTES", "TASK": "BYTES", "MAX_NEW_TOKENS": "INT32"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Student, Any]]:
    """A service with a real, tiny student: our own client and Triton's."""
    with (
        running_student(tmp_path_factory.mktemp("store")) as (_, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        yield student, client


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Triton's client of a service whose student echoes."""
    with (
        running_student(tmp_path_factory.mktemp("store"), lambda folder: EchoEngine()) as (_, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        client.url = student.url
        yield client


def bytes_input(name: str, *elements: bytes) -> Any:
    values = np.empty(len(elements), dtype=object)
    values[:] = elements
    return triton.InferInput(name, [len(elements)], "BYTES").set_data_from_numpy(values)


def asking(images: tuple[bytes, ...], question: str = "", task: str = "", max_new_tokens: int | None = None) -> Any:
    inputs = [bytes_input("IMAGES", *images)]
    if question:
        inputs.append(bytes_input("QUESTION", question.encode()))
    if task:
        inputs.append(bytes_input("TASK", task.encode()))
    if max_new_tokens is not None:
        limit = np.array([max_new_tokens], np.int32)
        inputs.append(triton.InferInput("MAX_NEW_TOKENS", [1], "INT32").set_data_from_numpy(limit))
    return inputs


def as_json(question: Question) -> str:
    """What a typed question of these tests looks like in QUESTION."""
    fields: dict[str, Any] = {}
    if question.actions:
        fields["actions"] = [{"primitive": a.primitive.value, "magnitude": a.magnitude} for a in question.actions]
    if question.object:
        fields["object"] = question.object
    for name in ("box", "second_box"):
        if box := getattr(question, name):
            fields[name] = list(box.corners)
    return json.dumps(fields)


def value(result: Any, name: str) -> Any:
    values = result.as_numpy(name)
    return None if values is None else values.item()


@contextmanager
def fails(status: str, message: str) -> Iterator[None]:
    with pytest.raises(InferenceServerException, match=message) as caught:
        yield
    assert caught.value.status() == f"StatusCode.{status}"


def stream(client: Any, *requests: dict[str, Any], headers: dict[str, str] | None = None) -> list[Any]:
    """All that a stream brings until each request had its last response: results and errors, as they came."""
    got: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: got.put(error or result), headers=headers)
    try:
        for request in requests:
            client.async_stream_infer(**request)
        everything: list[Any] = []
        while sum(map(is_final, everything)) < len(requests):
            everything.append(got.get(timeout=DEADLINE_S))
        return everything
    finally:
        client.stop_stream()


def is_final(response: Any) -> bool:
    if isinstance(response, InferenceServerException):
        return True
    return bool(response.get_response().parameters["triton_final_response"].bool_param)


# What it is


def test_the_service_describes_itself(echo: Any) -> None:
    assert echo.is_server_live() and echo.is_server_ready()
    assert echo.is_model_ready("student") and echo.is_model_ready("student_stream", "1")
    assert not echo.is_model_ready("student", "2") and not echo.is_model_ready("nobody")
    server = echo.get_server_metadata()
    assert (server.name, server.version) == ("world2vlm-student", "0.1.0")
    assert set(server.extensions) == {"model_repository", "model_configuration", "statistics"}


@pytest.mark.parametrize(("model", "outputs"), [("student", OUTPUTS), ("student_stream", {"DELTA": "BYTES"} | OUTPUTS)])
def test_a_models_tensors_are_described(echo: Any, model: str, outputs: dict[str, str]) -> None:
    metadata = echo.get_model_metadata(model)
    assert (metadata.name, list(metadata.versions)) == (model, ["1"])
    assert {tensor.name: tensor.datatype for tensor in metadata.inputs} == INPUTS
    assert {tensor.name: tensor.datatype for tensor in metadata.outputs} == outputs
    assert {tensor.name: list(tensor.shape) for tensor in metadata.inputs}["IMAGES"] == [-1]
    config = echo.get_model_config(model).config
    assert config.model_transaction_policy.decoupled is (model == "student_stream")
    assert config.max_batch_size == 0
    assert {tensor.name for tensor in config.input if tensor.optional} == {"QUESTION", "TASK", "MAX_NEW_TOKENS"}
    assert [tensor.name for tensor in config.output] == list(outputs)


def test_health_and_reflection_know_the_service(echo: Any) -> None:
    assert is_serving(echo.url, service="inference.GRPCInferenceService")
    with grpc.insecure_channel(echo.url) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.ModelInferRequest")
        (response,) = stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE_S)
    assert response.HasField("file_descriptor_response")


def test_without_a_checkpoint_it_is_live_and_not_ready(tmp_path: Path) -> None:
    settings = StudentSettings.load(store=str(tmp_path), port=0, metrics_port=-1, control_token=TOKEN)
    with (
        closing(App(settings, choose_engine(settings))) as app,
        rpc.in_background(app.make_server) as port,
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        assert client.is_server_live() and not client.is_server_ready() and not client.is_model_ready("student")
        with fails("UNAVAILABLE", "no checkpoint serves yet"):
            client.infer("student", asking(PAIR, "where?"))
        for call in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
            with fails("UNAVAILABLE", "no checkpoint serves yet"):
                call("student")
        (error,) = stream(client, {"model_name": "student_stream", "inputs": asking(PAIR, "where?")})
        assert "no checkpoint serves yet" in str(error)
        assert not client.get_model_repository_index().models
        with fails("INVALID_ARGUMENT", "load failed for model 'student': no version is published"):
            client.load_model("student", headers=HEADERS)


# Answers


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_answered_as_by_our_own_service(real: tuple[Student, Any], task: str) -> None:
    student, client = real
    question, images = QUESTIONS[task], PAIR[: TASKS[task].images]
    expected = student.ask(question, images, max_new_tokens=16)
    result = client.infer("student", asking(images, as_json(question), task, 16), request_id="a request")
    assert (value(result, "TEXT").decode(), value(result, "VERSION")) == (expected.text, 1)
    assert value(result, "PROBABILITY") == pytest.approx(expected.probability, rel=1e-3)
    assert value(result, "PROMPT_TOKENS") == expected.prompt_tokens
    assert value(result, "ANSWER_TOKENS") == expected.answer_tokens
    assert value(result, "QUEUE_MS") >= 0 and value(result, "GENERATE_MS") > 0
    answer = value(result, "ANSWER")
    assert json.loads(answer) == answer_json(expected.answer) if expected.answer is not None else answer == b""
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("student", "1", "a request")
    metadata = {tensor.name: tensor.datatype for tensor in client.get_model_metadata("student").outputs}
    assert {tensor.name: tensor.datatype for tensor in response.outputs} == metadata


def answer_json(answer: Any) -> dict[str, Any]:
    if isinstance(answer, bool):
        return {"yes": answer}
    if isinstance(answer, tuple):
        return {"actions": [{"primitive": a.primitive.value, "magnitude": a.magnitude} for a in answer]}
    return {"box": list(answer.corners)}


@pytest.mark.parametrize(
    ("task", "text", "answer"),
    [
        ("A1", "move forward 0.5 meters", {"actions": [{"primitive": "move forward", "magnitude": 0.5}]}),
        ("A3", "turn left 30 degrees; move right 1 meters",
         {"actions": [{"primitive": "turn left", "magnitude": 30}, {"primitive": "move right", "magnitude": 1}]}),
        ("A4", "false", {"yes": False}),
        ("D1", "[1, 2, 30, 400]", {"box": [1, 2, 30, 400]}),
        ("D2", "yes", {"yes": True}),
    ],
)  # fmt: skip
def test_answers_are_typed(tmp_path: Path, task: str, text: str, answer: dict[str, Any]) -> None:
    with (
        running_student(tmp_path, lambda folder: EchoEngine(text)) as (_, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        images = PAIR[: TASKS[task].images]
        result = client.infer("student", asking(images, as_json(QUESTIONS[task]), task))
        assert value(result, "TEXT").decode() == text
        assert json.loads(value(result, "ANSWER")) == answer
        assert value(client.infer("student", asking(PAIR, "free text")), "ANSWER") == b""


@pytest.mark.parametrize("task", TASKS)
def test_a_question_survives_its_json(task: str) -> None:
    assert read_question(task, as_json(QUESTIONS[task])) == QUESTIONS[task]


def test_a_task_that_needs_nothing_takes_no_question(echo: Any) -> None:
    expected = QUESTIONS["A1"].text.encode()
    for inputs in (asking(PAIR, task="A1"), asking(PAIR, "{}", "A1"), asking(PAIR, " ", "A1")):
        assert value(echo.infer("student", inputs), "TEXT") == expected


def test_free_text_stops_where_it_is_told_to(echo: Any) -> None:
    for limit, text in ((None, b"one two three"), (0, b"one two three"), (2, b"one two"), (1, b"one")):
        result = echo.infer("student", asking(PAIR[:1], "one two three", max_new_tokens=limit))
        assert (value(result, "TEXT"), value(result, "ANSWER")) == (text, b"")
        assert value(result, "ANSWER_TOKENS") == len(text.split())


def test_only_the_outputs_wanted_come(echo: Any) -> None:
    wanted = [triton.InferRequestedOutput("VERSION"), triton.InferRequestedOutput("TEXT")]
    result = echo.infer("student", asking(PAIR, "hello"), outputs=wanted, model_version="1")
    assert {tensor.name for tensor in result.get_response().outputs} == {"VERSION", "TEXT"}
    assert (value(result, "VERSION"), value(result, "TEXT"), result.as_numpy("ANSWER")) == (1, b"hello", None)


def test_contents_may_be_typed_instead_of_raw(echo: Any) -> None:
    request = inference(
        typed("IMAGES", "BYTES", 2, bytes_contents=PAIR),
        typed("QUESTION", "BYTES", 1, bytes_contents=[b"one two three"]),
        typed("MAX_NEW_TOKENS", "INT32", 1, int_contents=[2]),
    )
    result = triton.InferResult(call(echo.url, "ModelInfer", request))
    assert value(result, "TEXT") == b"one two"


async def test_the_asynchronous_client_works_too(echo: Any) -> None:
    async with aio_triton.InferenceServerClient(echo.url) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert (await client.get_model_metadata("student")).name == "student"
        results = await asyncio.gather(*(client.infer("student", asking(PAIR, f"say {n}")) for n in range(8)))
        assert [value(result, "TEXT") for result in results] == [b"say %d" % n for n in range(8)]
        with fails("NOT_FOUND", "unknown model 'nobody'"):
            await client.infer("nobody", asking(PAIR, "hello"))

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "student_stream", "inputs": asking(PAIR, "one two three")}

        got = [pair async for pair in client.stream_infer(requests(), stream_timeout=DEADLINE_S)]
        assert [error for _, error in got] == [None] * 4
        assert [value(result, "DELTA") for result, _ in got] == [b"one", b" two", b" three", None]
        assert [value(result, "TEXT") for result, _ in got] == [None] * 3 + [b"one two three"]


def test_callbacks_get_their_answers(echo: Any) -> None:
    got: queue.Queue[Any] = queue.Queue()
    echo.async_infer("student", asking(PAIR, "hello"), lambda result, error: got.put(error or result))
    assert value(got.get(timeout=DEADLINE_S), "TEXT") == b"hello"


# Streams


@pytest.mark.parametrize("enable", [False, True])
def test_a_stream_brings_pieces_and_then_the_whole(real: tuple[Student, Any], enable: bool) -> None:
    student, client = real
    inputs = asking(PAIR, as_json(QUESTIONS["A3"]), "A3", 16)
    request = {"model_name": "student_stream", "inputs": inputs, "request_id": "7"}
    *pieces, last = stream(client, request | {"enable_empty_final_response": enable})
    expected = student.ask(QUESTIONS["A3"], PAIR, max_new_tokens=16)
    assert b"".join(value(piece, "DELTA") for piece in pieces).decode() == expected.text
    assert (value(last, "TEXT").decode(), value(last, "VERSION")) == (expected.text, 1)
    assert value(last, "PROBABILITY") == pytest.approx(expected.probability, rel=1e-3)
    assert last.as_numpy("DELTA") is None
    responses = [response.get_response() for response in (*pieces, last)]
    assert {(r.model_name, r.model_version, r.id) for r in responses} == {("student_stream", "1", "7")}
    assert all("triton_final_response" in response.parameters for response in responses)


def test_one_stream_answers_many_requests_at_once(echo: Any) -> None:
    # More than may be under way in one stream, and than the whole service takes: none is refused.
    names = [f"request {number}" for number in range(200)]
    requests = [
        {"model_name": "student_stream", "inputs": asking(PAIR[:1], name), "request_id": name} for name in names
    ]
    said: dict[str, list[Any]] = {name: [] for name in names}
    for result in stream(echo, *requests):
        assert not isinstance(result, InferenceServerException), result
        said[result.get_response().id].append(result)
    for name, (*pieces, last) in said.items():
        assert b"".join(value(piece, "DELTA") for piece in pieces) == value(last, "TEXT") == name.encode()


def test_a_stream_of_the_unary_model_keeps_the_requests_order(echo: Any) -> None:
    questions = [" ".join("abcdefghij"[: 10 - number]) for number in range(10)]
    requests = [{"model_name": "student", "inputs": asking(PAIR, question)} for question in questions]
    results = stream(echo, *requests)
    assert [value(result, "TEXT").decode() for result in results] == questions


def test_a_stream_brings_only_the_outputs_wanted(echo: Any) -> None:
    request = {"model_name": "student_stream", "inputs": asking(PAIR, "one two")}
    (whole,) = stream(echo, request | {"outputs": [triton.InferRequestedOutput("TEXT")]})
    assert value(whole, "TEXT") == b"one two" and len(whole.get_response().outputs) == 1
    *pieces, last = stream(echo, request | {"outputs": [triton.InferRequestedOutput("DELTA")]})
    assert [value(piece, "DELTA") for piece in pieces] == [b"one", b" two"]
    assert not last.get_response().outputs and is_final(last)


def test_an_error_in_a_stream_is_a_response_and_the_stream_goes_on(echo: Any) -> None:
    good = {"model_name": "student_stream", "inputs": asking(PAIR, "hello")}
    for model, message in (("nobody", "unknown model 'nobody'"), ("student_stream", "9 does not serve")):
        bad = {"model_name": model, "inputs": asking(PAIR, "hello"), "model_version": "9"}
        got = stream(echo, bad, good)
        (error,) = (one for one in got if isinstance(one, InferenceServerException))
        assert message in str(error)
        assert b"hello" in [value(one, "TEXT") for one in got if one is not error]


def test_an_error_in_a_stream_says_whose_it_is(echo: Any) -> None:
    request = inference(typed("IMAGES", "BYTES", 0), model="student_stream")
    request.id = "mine"
    with grpc.insecure_channel(echo.url) as channel:
        calls: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (response,) = calls.ModelStreamInfer(iter([request]), timeout=DEADLINE_S)
    assert "a question takes 1 to 2 images" in response.error_message
    assert (response.infer_response.id, response.infer_response.model_name) == ("mine", "student_stream")


def test_a_strict_stream_ends_with_the_errors_status(echo: Any) -> None:
    bad = {"model_name": "nobody", "inputs": asking(PAIR, "hello")}
    (error,) = stream(echo, bad, headers={"triton_grpc_error": "true"})
    assert error.status() == "StatusCode.NOT_FOUND" and "unknown model 'nobody'" in str(error)


def test_a_stream_that_its_caller_leaves_is_not_answered_on(tmp_path: Path) -> None:
    engine = EchoEngine()
    with (
        running_student(tmp_path, lambda folder: engine) as (app, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        engine.entered.clear()
        engine.gate.clear()
        got: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: got.put(error or result))
        for _ in range(3):
            client.async_stream_infer("student_stream", asking(PAIR, "never said"))
        assert engine.entered.wait(DEADLINE_S)
        client.stop_stream(cancel_requests=True)
        assert got.get(timeout=DEADLINE_S).status() == "StatusCode.CANCELLED"
        wait_for(lambda: app.reasoner.active == 0)
        engine.gate.set()
        assert value(client.infer("student", asking(PAIR, "next")), "TEXT") == b"next"
        stats = client.get_inference_statistics("student_stream").model_stats[0].inference_stats
        assert stats.success.count == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Refusals


def inference(*inputs: Any, raw: tuple[bytes, ...] = (), model: str = "student") -> Any:
    return service_pb2.ModelInferRequest(model_name=model, inputs=inputs, raw_input_contents=raw)


def typed(name: str, datatype: str, *shape: int, **contents: Any) -> Any:
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        tensor.contents.CopyFrom(service_pb2.InferTensorContents(**contents))
    return tensor


def call(url: str, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    """A call with a message that tritonclient itself would not make."""
    with grpc.insecure_channel(url) as channel:
        calls: Any = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return getattr(calls, method)(request, timeout=DEADLINE_S, metadata=metadata)


def element(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


IMAGES = typed("IMAGES", "BYTES", 1)
QUESTION = typed("QUESTION", "BYTES", 1)
LIMIT = typed("MAX_NEW_TOKENS", "INT32", 1)
TASK = typed("TASK", "BYTES", 1)
PNG = element(PAIR[0])
WHERE = element(b"where?")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (inference(), "'IMAGES', which is missing"),
        (inference(QUESTION, raw=(WHERE,)), "'IMAGES', which is missing"),
        (inference(IMAGES, raw=(PNG,)), "question is empty"),
        (inference(typed("IMAGE", "BYTES", 1), raw=(PNG,)), "unexpected inference input 'IMAGE'"),
        (inference(IMAGES, IMAGES, raw=(PNG, PNG)), "'IMAGES' is given twice"),
        (inference(typed("IMAGES", "UINT8", 9), raw=(b"123456789",)), "data-type is 'UINT8'"),
        (inference(typed("IMAGES", "", 1), raw=(PNG,)), "data-type is ''"),
        (inference(IMAGES, typed("MAX_NEW_TOKENS", "INT64", 1), raw=(PNG, b"12345678")), "data-type is 'INT64'"),
        (inference(typed("IMAGES", "BYTES"), raw=(PNG,)), r"unexpected shape for input 'IMAGES': .* got \[\]"),
        (inference(typed("IMAGES", "BYTES", 1, 1), raw=(PNG,)), r"got \[1, 1\]"),
        (inference(typed("IMAGES", "BYTES", -1), raw=(PNG,)), r"got \[-1\]"),
        (inference(typed("IMAGES", "BYTES", 1 << 62), raw=(PNG,)), "unexpected shape"),
        (inference(IMAGES, typed("QUESTION", "BYTES", 2), raw=(PNG, WHERE * 2)), r"expected \[1\]"),
        (inference(IMAGES, typed("QUESTION", "BYTES", 0), raw=(PNG, b"")), r"expected \[1\]"),
        (inference(IMAGES, QUESTION, raw=(PNG,)), "2 inputs, but 1 raw_input_contents"),
        (inference(IMAGES, QUESTION, raw=(PNG, WHERE, WHERE)), "2 inputs, but 3 raw_input_contents"),
        (inference(IMAGES, QUESTION, raw=(PNG, b"")), "incomplete string length for inference input 'QUESTION'"),
        (inference(IMAGES, QUESTION, raw=(PNG, b"\1\0\0")), "incomplete string length"),
        (inference(IMAGES, QUESTION, raw=(PNG, WHERE[:-1])), "expecting string of length 6 but only 5 bytes"),
        (inference(IMAGES, QUESTION, raw=(PNG, b"\xff\xff\xff\xffwhere?")), "length 4294967295 but only 6 bytes"),
        (inference(IMAGES, QUESTION, raw=(PNG, WHERE + b"!")), "1 bytes more than"),
        (inference(IMAGES, QUESTION, raw=(PNG * 2, WHERE)), "bytes more than"),
        (inference(typed("IMAGES", "BYTES", 2), QUESTION, raw=(PNG, WHERE)), "incomplete string length"),
        (inference(IMAGES, QUESTION, LIMIT, raw=(PNG, WHERE, b"123")), "3 bytes; its shape needs 4"),
        (inference(IMAGES, QUESTION, LIMIT, raw=(PNG, WHERE, b"\xff\xff\xff\xff")), "0 or more, not -1"),
        (inference(IMAGES, QUESTION, LIMIT, raw=(PNG, WHERE, b"\0\1\0\0")), "at most 64 tokens, not 256"),
        (inference(typed("IMAGES", "BYTES", 1, bytes_contents=[b"x"]), QUESTION, raw=(PNG, WHERE)),
         "contents field must not be specified when using raw_input_contents for 'IMAGES'"),
        (inference(typed("IMAGES", "BYTES", 2, bytes_contents=[b"x"])), "1 elements; its shape says 2"),
        (inference(typed("IMAGES", "BYTES", 1, int_contents=[1])), "has int_contents; BYTES goes into bytes_contents"),
        (inference(typed("IMAGES", "BYTES", 1, bytes_contents=[b"x"], fp32_contents=[1.0])), "has fp32_contents"),
        (inference(typed("IMAGES", "BYTES", 0), QUESTION, raw=(b"", WHERE)), "1 to 2 images, not 0"),
        (inference(typed("IMAGES", "BYTES", 3), QUESTION, raw=(PNG * 3, WHERE)), "1 to 2 images, not 3"),
        (inference(IMAGES, QUESTION, raw=(element(b"GIF89a"), WHERE)), "not a PNG"),
        (inference(IMAGES, QUESTION, raw=(PNG, element(b"\xff\xfe"))), "QUESTION is no UTF-8"),
        (inference(IMAGES, QUESTION, raw=(PNG, element(b"x" * 70_000))), "QUESTION has more than 65536 bytes"),
        (inference(IMAGES, QUESTION, TASK, raw=(PNG, WHERE, element(b"D2"))), "not the JSON of a question of 'D2'"),
        (inference(IMAGES, QUESTION, TASK, raw=(PNG, element(b"{}"), element(b"D2"))), "task D2 needs actions"),
        (inference(IMAGES, TASK, raw=(PNG, element(b"A1"))), "A1 takes 2 images, not 1"),
        (inference(IMAGES, TASK, raw=(PNG, element(b"Z9"))), "unknown task 'Z9'"),
    ],
)  # fmt: skip
def test_bad_tensors_are_invalid(echo: Any, request_: Any, message: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(echo.url, "ModelInfer", request_)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(pytest.fail.Exception, match=message):
        pytest.fail(error.details())
    assert value(echo.infer("student", asking(PAIR, "go on")), "TEXT") == b"go on"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('{"box": [1, 2, 3]', "Invalid JSON"),
        ("[]", "object"),
        ('{"box": [1, 2, 3]}', r"box\.3: Field required"),
        ('{"box": [1, 2, 3, 4.5]}', r"box\.3: "),
        ('{"box": [30, 2, 1, 4]}', "a box needs"),
        ('{"actions": [{"primitive": "fly", "magnitude": 1}]}', r"actions\.0\.primitive: "),
        ('{"actions": [{"primitive": "turn left", "magnitude": -1}]}', "greater than 0"),
        ('{"actions": [{"primitive": "turn left", "magnitude": NaN}]}', "magnitude"),
        ('{"colour": "red"}', "colour: Extra inputs"),
        ('{"object": "\\ud800"}', "Invalid JSON"),
        ("[" * 20_000, "Invalid JSON"),
    ],
)
def test_a_typed_question_must_be_its_tasks_json(echo: Any, fields: str, message: str) -> None:
    with fails("INVALID_ARGUMENT", message):
        echo.infer("student", asking(PAIR, fields, "D1"))


def test_unknown_models_and_versions_are_not_found(echo: Any) -> None:
    inputs = asking(PAIR, "where?")
    for name in ("nobody", ""):
        for method in (echo.infer, echo.get_model_metadata, echo.get_model_config):
            with fails("NOT_FOUND", "unknown model"):
                method(name, inputs) if method == echo.infer else method(name)
    with fails("NOT_FOUND", "unknown model"):
        echo.get_inference_statistics("nobody")
    with fails("NOT_FOUND", "version 9 does not serve; version 1 does"):
        echo.infer("student", inputs, model_version="9")
    for method in (echo.get_model_metadata, echo.get_model_config):
        with fails("NOT_FOUND", "version 9 does not serve"):
            method("student", "9")
    with fails("NOT_FOUND", "version 9 has not answered anything"):
        echo.get_inference_statistics("student", "9")
    for version in ("-1", "one", "1.0", "9" * 30, "²"):
        with fails("INVALID_ARGUMENT", "failed to get model version"):
            echo.infer("student", inputs, model_version=version)


def test_unknown_outputs_are_invalid(echo: Any) -> None:
    for name in ("DELTA", "LOGITS"):
        with fails("INVALID_ARGUMENT", f"unexpected inference output '{name}' for model 'student'"):
            echo.infer("student", asking(PAIR, "where?"), outputs=[triton.InferRequestedOutput(name)])


def test_what_is_not_offered_is_unimplemented(echo: Any) -> None:
    inputs = asking(PAIR, "where?")
    with fails("UNIMPLEMENTED", "doesn't support models with decoupled transaction policy"):
        echo.infer("student_stream", inputs)
    with fails("UNIMPLEMENTED", "classification"):
        echo.infer("student", inputs, outputs=[triton.InferRequestedOutput("TEXT", class_count=2)])
    shared = triton.InferInput("IMAGES", [1], "BYTES")
    shared.set_shared_memory("region", 64)
    with fails("UNIMPLEMENTED", "shared memory"):
        echo.infer("student", [shared])
    output = triton.InferRequestedOutput("TEXT")
    output.set_shared_memory("region", 64)
    with fails("UNIMPLEMENTED", "shared memory"):
        echo.infer("student", inputs, outputs=[output])
    for refused in (
        echo.get_system_shared_memory_status,
        lambda: echo.register_system_shared_memory("region", "/region", 64),
        echo.unregister_system_shared_memory,
        echo.get_cuda_shared_memory_status,
        lambda: echo.register_cuda_shared_memory("region", b"aGFuZGxl", 0, 64),
        echo.unregister_cuda_shared_memory,
        echo.get_trace_settings,
        echo.get_log_settings,
    ):
        with fails("UNIMPLEMENTED", "no shared memory, no trace settings and no log settings"):
            refused()
    for method, kind in (
        ("RepositoryIndex", service_pb2.RepositoryIndexRequest),
        ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest),
        ("RepositoryModelUnload", service_pb2.RepositoryModelUnloadRequest),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(echo.url, method, kind(repository_name="elsewhere"), tuple(HEADERS.items()))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@contextmanager
def held_up(store: Path, **settings: Any) -> Iterator[tuple[App, Any]]:
    """A service whose engine stands still until the block ends, and Triton's client."""
    engine = EchoEngine()
    with (
        running_student(store, lambda folder: engine, **settings) as (app, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        engine.gate.clear()
        try:
            yield app, client
        finally:
            engine.gate.set()


def test_a_full_queue_is_exhausted(tmp_path: Path) -> None:
    got: queue.Queue[Any] = queue.Queue()
    with held_up(tmp_path, max_batch=1, max_queue=0) as (app, client):
        client.async_infer("student", asking(PAIR, "first"), lambda result, error: got.put(error or result))
        wait_for(lambda: app.reasoner.active == 1)
        with fails("RESOURCE_EXHAUSTED", "try again later"):
            client.infer("student", asking(PAIR, "second"))
        (error,) = stream(client, {"model_name": "student_stream", "inputs": asking(PAIR, "third")})
        assert "try again later" in str(error)
        assert got.empty()


def test_a_deadline_ends_the_work(tmp_path: Path) -> None:
    with held_up(tmp_path) as (app, client):
        with fails("DEADLINE_EXCEEDED", "Deadline"):
            client.infer("student", asking(PAIR, "too slow"), client_timeout=0.3)
        wait_for(lambda: app.reasoner.active == 0)
        (one,) = client.get_inference_statistics("student").model_stats
        assert (one.inference_count, one.inference_stats.fail.count) == (0, 1)


def test_an_engine_that_breaks_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    class Breaks(EchoEngine):
        def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
            if "break" in query.text:
                raise RuntimeError("a secret of the inside")
            super().admit(key, query, max_new_tokens, streams)

    with (
        running_student(tmp_path, lambda folder: Breaks()) as (_, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        with fails("INTERNAL", "^.*internal error"):
            client.infer("student", asking(PAIR, "break"))
        request = {"model_name": "student_stream", "inputs": asking(PAIR, "break")}
        (error,) = stream(client, request)
        assert error.message() == "internal error"
        (error,) = stream(client, request, headers={"triton_grpc_error": "true"})
        assert error.status() == "StatusCode.INTERNAL" and "secret" not in str(error)
        assert value(client.infer("student", asking(PAIR, "go on")), "TEXT") == b"go on"


# The repository


def serving(client: Any) -> str:
    """The version that answers, as each way to ask for it says."""
    response = client.infer("student", asking(PAIR, "hello"))
    version = str(value(response, "VERSION"))
    assert response.get_response().model_version == version
    assert list(client.get_model_metadata("student_stream").versions) == [version]
    assert [m.version for m in client.get_model_repository_index().models if m.state == "READY"] == [version] * 2
    return version


def test_loading_is_the_swap(tmp_path: Path) -> None:
    with (
        running_student(tmp_path, lambda folder: EchoEngine()) as (app, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        assert serving(client) == "1"
        for seed in (1, 2):
            publish(tmp_path, tiny_student(seed), f"seed {seed}")
        index = client.get_model_repository_index().models
        assert [(m.name, m.version, m.state) for m in index] == [
            (name, version, "READY" if version == "1" else "UNAVAILABLE")
            for name in ("student", "student_stream")
            for version in "123"
        ]
        client.load_model("student", headers=HEADERS)
        assert serving(client) == "3"
        assert not client.is_model_ready("student", "1") and client.is_model_ready("student", "3")
        with fails("NOT_FOUND", "version 1 does not serve; version 3 does"):
            client.infer("student", asking(PAIR, "hello"), model_version="1")
        choice = '{"version_policy": {"specific": {"versions": [2]}}}'
        client.load_model("student_stream", headers=HEADERS, config=choice)
        assert serving(client) == "2"
        for kind, chosen in (("int64_param", 1), ("string_param", "3")):
            request = service_pb2.RepositoryModelLoadRequest(model_name="student")
            setattr(request.parameters["version"], kind, chosen)
            call(student.url, "RepositoryModelLoad", request, tuple(HEADERS.items()))
            assert serving(client) == str(chosen)
        ready = call(student.url, "RepositoryIndex", service_pb2.RepositoryIndexRequest(ready=True))
        assert [(m.name, m.version) for m in ready.models] == [("student", "3"), ("student_stream", "3")]
        assert [promotion.version for promotion in app.registry.history()] == [1, 3, 2, 1, 3]


def test_loading_and_unloading_need_the_token(echo: Any) -> None:
    for headers in (None, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
        with fails("UNAUTHENTICATED", "control token"):
            echo.load_model("student", headers=headers)
        with fails("UNAUTHENTICATED", "control token"):
            echo.unload_model("student", headers=headers)
    assert serving(echo) == "1"


def test_what_serves_is_never_unloaded(echo: Any) -> None:
    for model in ("student", "student_stream"):
        with fails("FAILED_PRECONDITION", f"model '{model}' is never unloaded"):
            echo.unload_model(model, headers=HEADERS)
        assert echo.is_model_ready(model)
    for control in (echo.unload_model, echo.load_model):
        with fails("NOT_FOUND", "unknown model 'nobody'"):
            control("nobody", headers=HEADERS)


def test_a_refused_load_says_why_and_changes_nothing(tmp_path: Path) -> None:
    folders: list[Path] = []

    def load(folder: Path) -> EchoEngine:
        folders.append(folder)
        if len(folders) > 1:
            raise PreconditionError("the checkpoint is unfit: no layers")
        return EchoEngine()

    refused = "load failed for model 'student': "
    with running_student(tmp_path, load) as (_, student), triton.InferenceServerClient(student.url) as client:
        publish(tmp_path, tiny_student(1), "unfit")
        publish(tmp_path, tiny_student(2), "corrupted")
        weights = tmp_path / "checkpoints/student/3/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
        with fails("INVALID_ARGUMENT", refused + ".*model.safetensors: differs from the manifest"):
            client.load_model("student", headers=HEADERS)
        for config, message in (
            ('{"version_policy": {"specific": {"versions": [2]}}}', "the checkpoint is unfit"),
            ('{"version_policy": {"specific": {"versions": [9]}}}', "no version 9"),
            ('{"version_policy": {"specific": {"versions": [1, 2]}}}', "may choose one version"),
            ('{"version_policy": {"specific": {"versions": [0]}}}', "may choose one version"),
            ('{"version_policy": {"latest": {}}}', "may choose one version"),
            ('{"max_batch_size": 4, "version_policy": {"specific": {"versions": [1]}}}', "and nothing else"),
            ("{}", "may choose one version"),
            ('{"no_such_field": 1}', "not the JSON of a model configuration"),
            ("[" * 10_000, "not the JSON of a model configuration"),
            (" " * 70_000, "more than 65536 characters"),
        ):
            with fails("INVALID_ARGUMENT", refused + ".*" + message):
                client.load_model("student", headers=HEADERS, config=config)
        with fails("INVALID_ARGUMENT", refused + "unrecognized load parameter 'file:1/model.py'"):
            client.load_model("student", headers=HEADERS, config="{}", files={"file:1/model.py": b"import os"})
        bad: list[tuple[dict[str, dict[str, Any]], str]] = [
            ({"version": {"bool_param": True}}, "an integer or a string"),
            ({"version": {"int64_param": 0}}, "from 1 on"),
            ({"version": {"string_param": ""}}, "from 1 on"),
            ({"version": {"int64_param": -1}}, "failed to get model version"),
            ({"version": {"string_param": "../1"}}, "failed to get model version"),
            ({"version": {"int64_param": 1}, "config": {"string_param": "{}"}}, "exclude each other"),
        ]
        for parameters, message in bad:
            request: Any = service_pb2.RepositoryModelLoadRequest(model_name="student")
            for name, fields in parameters.items():
                for kind, given in fields.items():
                    setattr(request.parameters[name], kind, given)
            with pytest.raises(grpc.RpcError) as caught:
                call(student.url, "RepositoryModelLoad", request, tuple(HEADERS.items()))
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert error.details().startswith(refused) and message in error.details()
        assert serving(client) == "1"
        assert len(folders) == 2, "only the version that could be verified was ever loaded"


def test_a_load_while_questions_keep_coming_loses_none(tmp_path: Path) -> None:
    with running_student(tmp_path) as (_, student), triton.InferenceServerClient(student.url) as client:
        for seed in (1, 2):
            publish(tmp_path, tiny_student(seed), f"seed {seed}")
        done, versions, errors = threading.Event(), [], []

        def keep_asking() -> None:
            with triton.InferenceServerClient(student.url) as own:
                while not done.is_set():
                    *pieces, last = stream(
                        own, {"model_name": "student_stream", "inputs": asking(PAIR, "where?", max_new_tokens=6)}
                    )
                    if isinstance(last, InferenceServerException):
                        errors.append(last)
                        continue
                    mine = {piece.get_response().model_version for piece in (*pieces, last)}
                    versions.append((mine, str(value(last, "VERSION"))))

        threads = [threading.Thread(target=keep_asking) for _ in range(2)]
        for thread in threads:
            thread.start()
        for version in "23":
            choice = json.dumps({"version_policy": {"specific": {"versions": [int(version)]}}})
            client.load_model("student", headers=HEADERS, config=choice)
            count = len(versions)
            wait_for(lambda count=count: len(versions) > count + 4)  # type: ignore[misc]
        done.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert all(mine == {version} for mine, version in versions), "an answer is of one version from its first piece on"
    assert {version for _, version in versions} == {"1", "2", "3"}


# Statistics


def test_statistics_count_what_was_answered(tmp_path: Path) -> None:
    with (
        running_student(tmp_path) as (_, student),
        triton.InferenceServerClient(student.url) as client,
    ):
        fresh = client.get_inference_statistics().model_stats
        assert [(s.name, s.version, s.inference_count) for s in fresh] == [
            ("student", "1", 0),
            ("student_stream", "1", 0),
        ]
        before = time.time_ns() // 1_000_000
        started = time.perf_counter_ns()
        answers = [client.infer("student", asking(PAIR, "where?", max_new_tokens=4)) for _ in range(3)]
        took = time.perf_counter_ns() - started
        with fails("INVALID_ARGUMENT", "not a PNG"):
            client.infer("student", asking((b"no picture",), "where?"))
        stream(client, {"model_name": "student_stream", "inputs": asking(PAIR, "where?", max_new_tokens=4)})
        (one,) = client.get_inference_statistics("student").model_stats
        stats = one.inference_stats
        assert (one.inference_count, one.execution_count, stats.success.count, stats.fail.count) == (3, 3, 3, 1)
        assert before <= one.last_inference <= time.time_ns() // 1_000_000
        for name, duration in (("GENERATE_MS", stats.compute_infer), ("QUEUE_MS", stats.queue)):
            assert duration.count == 3
            assert duration.ns == pytest.approx(1e6 * sum(value(answer, name) for answer in answers), rel=1e-4, abs=10)
        parts = stats.queue.ns + stats.compute_input.ns + stats.compute_infer.ns
        assert 0 < parts <= stats.success.ns < took
        assert stats.fail.ns > 0
        (other,) = client.get_inference_statistics("student_stream", "1").model_stats
        assert (other.inference_count, other.inference_stats.fail.count) == (1, 0)
        publish(tmp_path, tiny_student(1), "second")
        client.load_model("student", headers=HEADERS)
        client.infer("student", asking(PAIR, "where?", max_new_tokens=4))
        both = client.get_inference_statistics("student").model_stats
        assert [(s.version, s.inference_count) for s in both] == [("1", 3), ("2", 1)]
