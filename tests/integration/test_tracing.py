"""Traces, with the real SDK: what a collector is sent, and what spans one question leaves on its way."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.student_kit import DEADLINE_S, EchoEngine, png, running_student
from world2vlm import tracing
from world2vlm.client import AsyncStudent, Student
from world2vlm.errors import InvalidInputError


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.services: set[str] = set()
        self.names: list[str] = []

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any) -> Any:
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            self.names += [span.name for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


class Recorder(InMemorySpanExporter):
    """Keeps spans; a span that a thread of the server ends comes a moment after the caller has its answer."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def export(self, spans: Any) -> Any:
        with self._more:
            result = super().export(spans)
            self._more.notify_all()
        return result

    def wait_for(self, count: int) -> dict[str, ReadableSpan]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.get_finished_spans()) >= count, DEADLINE_S)
        spans = {span.name: span for span in self.get_finished_spans()}
        assert len(spans) == count
        return spans


def provider_of(recorder: Recorder) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(recorder))
    return provider


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What this process records."""
    recorder = Recorder()
    with tracing.recording(provider_of(recorder)):
        yield recorder


@pytest.mark.parametrize("way", ["ask", "stream", "async ask", "async stream"])
def test_client_server_queue_and_engine_share_one_trace(tmp_path: Path, recorder: Recorder, way: str) -> None:
    with running_student(tmp_path, lambda folder: EchoEngine()) as (_, client):
        recorder.clear()
        ask_by(way, client)
        spans = recorder.wait_for(4)
    method = "ReasonStream" if "stream" in way else "Reason"
    asked, served = spans[f"student.{method}"], spans[f"/world2vlm.v1.StudentService/{method}"]
    queued, answered = spans["student.queue"], spans["student.engine"]
    assert len({span.context.trace_id for span in spans.values()}) == 1
    assert asked.parent is None and parent_of(served) == asked.context.span_id
    assert parent_of(queued) == parent_of(answered) == served.context.span_id
    assert begin(asked) <= begin(served) <= begin(queued) <= begin(answered)
    # What lies in the queue's and the engine's spans was measured by another clock: a millisecond may lie between.
    assert end(queued) == begin(answered) and end(answered) <= end(served) + 1_000_000
    assert dict(answered.attributes or {}) == {"version": 1, "answer_tokens": 2}
    assert {"rpc.grpc.status": "OK", "request_id": "robot-7", "version": "1"}.items() <= dict(
        served.attributes or {}
    ).items()


def ask_by(way: str, client: Student) -> None:
    async def ask() -> None:
        async with AsyncStudent(client.url) as student:
            if way == "async ask":
                await student.ask("two words", [png()], request_id="robot-7")
            else:
                assert [piece async for piece in student.stream("two words", [png()], request_id="robot-7")]

    match way:
        case "ask":
            client.ask("two words", [png()], request_id="robot-7")
        case "stream":
            assert list(client.stream("two words", [png()], request_id="robot-7"))
        case _:
            asyncio.run(ask())


def test_a_refused_question_is_an_error_in_its_trace(tmp_path: Path, recorder: Recorder) -> None:
    with running_student(tmp_path, lambda folder: EchoEngine()) as (_, client):
        recorder.clear()
        with pytest.raises(InvalidInputError):
            client.ask("where?", [])
        spans = recorder.wait_for(2)
    assert {span.status.status_code for span in spans.values()} == {trace.StatusCode.ERROR}
    (served,) = (span for span in spans.values() if span.parent)
    assert (served.attributes or {})["rpc.grpc.status"] == "INVALID_ARGUMENT"


def test_the_client_joins_its_caller_s_trace(tmp_path: Path, recorder: Recorder) -> None:
    with running_student(tmp_path, lambda folder: EchoEngine()) as (_, client):
        recorder.clear()
        with provider_of(recorder).get_tracer("robot").start_as_current_span("steer") as steering:
            client.ask("where?", [png()])
            assert trace.get_current_span() is steering
        spans = recorder.wait_for(5)
    assert {span.context.trace_id for span in spans.values()} == {steering.get_span_context().trace_id}


def test_spans_reach_the_collector_before_the_service_ends(tmp_path: Path) -> None:
    collector = Collector()
    with ExitStack() as stack:
        server = grpc.server(stack.enter_context(ThreadPoolExecutor(2)))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stack.callback(server.stop, None)
        with (
            tracing.exporting("world2vlm-test", f"http://127.0.0.1:{port}"),
            running_student(tmp_path, lambda folder: EchoEngine()) as (_, client),
        ):
            client.ask("where?", [png()])
    assert {"student.Reason", "student.queue", "student.engine"} <= set(collector.names)
    assert collector.services == {"world2vlm-test"}


def test_without_the_extra_there_are_no_traces_and_asking_for_them_says_so() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from world2vlm import tracing
with tracing.client_span("call") as metadata, tracing.server_span("call", {}) as attributes:
    attributes["status"] = "OK"
    tracing.record("queue", 1, 2)
    assert metadata == ()
with tracing.exporting("student", None):
    pass
try:
    tracing.exporting("student", "http://localhost:4317").__enter__()
except tracing.InvalidInputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "world2vlm[tracing]" in done.stdout


def test_nothing_is_recorded_without_an_endpoint() -> None:
    with tracing.exporting("world2vlm-test", None), tracing.client_span("student.Reason") as metadata:
        assert metadata == ()


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def begin(span: ReadableSpan) -> int:
    assert span.start_time is not None
    return span.start_time


def end(span: ReadableSpan) -> int:
    assert span.end_time is not None
    return span.end_time
