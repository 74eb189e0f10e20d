"""The student's client, synchronous (`Student`) and for asyncio (`AsyncStudent`).

Questions are tried again where that can help: while nobody is there (UNAVAILABLE), and where a full queue says when to
come back (RESOURCE_EXHAUSTED with `retry-after-ms`). gRPC's own retry policy would stop after five attempts, and at
requests of more than 256 kB, which is less than a picture may have.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import grpc

from world2vlm import rpc, tracing
from world2vlm.actions import Action
from world2vlm.boxes import Box
from world2vlm.convert import answer_from_proto, question_to_proto
from world2vlm.images import Picture, encode_picture
from world2vlm.rpc import REQUEST_ID, Attempts, Metadata, raise_domain_error
from world2vlm.tasks import Answer, Question
from world2vlm.tls import ClientTls
from world2vlm.v1 import spatial_pb2, student_pb2, student_pb2_grpc

ASK_SECONDS = 60.0
SWAP_SECONDS = 600.0


@dataclass(frozen=True)
class StudentReply:
    """An answer.

    Attributes:
        text: what the student said.
        answer: the same in its task's form; None for free text and where the text has not that form.
        probability: 0 to 1.
        version: the checkpoint that answered.
        prompt_tokens, answer_tokens: what went in and came out.
        queue_ms, generate_ms: milliseconds waited, and milliseconds that the answer took after that.
        request_id: what the service's log calls this request.
    """

    text: str
    answer: Answer | None
    probability: float
    version: str
    prompt_tokens: int
    answer_tokens: int
    queue_ms: float
    generate_ms: float
    request_id: str

    @property
    def actions(self) -> tuple[Action, ...]:
        """The answer to A1, A2, A3 or D3, in metres and degrees. Raises TypeError where the answer is none."""
        if not isinstance(self.answer, tuple):
            raise self._mismatch("actions")
        return self.answer

    @property
    def box(self) -> Box:
        """The answer to D1, in thousandths of the image. Raises TypeError where the answer is none."""
        if not isinstance(self.answer, Box):
            raise self._mismatch("a box")
        return self.answer

    @property
    def yes(self) -> bool:
        """The answer to A4 (true), D2 or D4 (yes). Raises TypeError where the answer is none."""
        if not isinstance(self.answer, bool):
            raise self._mismatch("yes or no")
        return self.answer

    def _mismatch(self, kind: str) -> TypeError:
        # Never a silent None or False: a machine may move on it.
        return TypeError(f"the answer {self.text!r} is not {kind}")


class Student:
    """Asks the student service at `host:port`; with the control token it can also change what serves.

    Every method raises the errors of `world2vlm.errors`, UnavailableError also where nobody answers in time. Threads
    may share a client.

    Args:
        url: `host:port`.
        token: the control token, for `swap` and `roll_back`.
        tls: what to trust and to show; None = no TLS.
        retry: whether questions are tried again while nobody is there or the queue is full; changes never are.
    """

    def __init__(self, url: str, token: str | None = None, tls: ClientTls | None = None, *, retry: bool = True) -> None:
        self.url = url
        self._retry = retry
        self._channel = rpc.channel(url, tls)
        self._student: Any = student_pb2_grpc.StudentServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._checkpoints: Any = student_pb2_grpc.CheckpointServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def ask(
        self,
        question: Question | str,
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> StudentReply:
        """Ask one question.

        Args:
            question: a task's, or free text.
            images: one or two, oldest first: encoded bytes, paths of files, PIL images, or uint8 RGB arrays.
            max_new_tokens: where to stop at the latest; 0 = as late as the service allows.
            timeout: seconds, all attempts together.
            request_id: what the service's log shall call this request; a random one by default.
        """
        request = _request(question, images, max_new_tokens)
        return _reply(*self._call("Reason", request, timeout, request_id))

    def ask_many(
        self,
        questions: Sequence[Question | str],
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> list[StudentReply]:
        """Ask several questions about the same images, which travel once; the replies come in the questions' order.

        One checkpoint answers all of them, or none is answered. It takes less time than asking them one by one. The
        arguments are those of `ask`.
        """
        request = _request_many(questions, images, max_new_tokens)
        message, name = self._call("ReasonMany", request, timeout, request_id)
        return [_reply(reply, name) for reply in message.replies]

    def stream(
        self,
        question: Question | str,
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> Iterator[str | StudentReply]:
        """Ask as `ask` does; yields the text's pieces as they come, then the whole reply.

        Closing the iterator stops the answer. What has begun to flow is not tried again.
        """
        request = _request(question, images, max_new_tokens)
        with _asking("ReasonStream", request_id) as (name, metadata):
            attempts, has_begun = Attempts(timeout, self._retry), False
            while True:
                call = self._student.ReasonStream(request, timeout=attempts.left, metadata=metadata)
                try:
                    for message in call:
                        has_begun = True
                        yield _piece(message, name)
                    return
                except grpc.RpcError as error:
                    time.sleep(attempts.pause_after(error, may_repeat=not has_begun))
                finally:
                    call.cancel()

    def checkpoints(self) -> list[student_pb2.Checkpoint]:
        """All published checkpoints, by ascending version."""
        request = student_pb2.ListCheckpointsRequest()
        with _domain_errors():
            return list(self._checkpoints.ListCheckpoints(request, timeout=ASK_SECONDS).checkpoints)

    def serving(self) -> student_pb2.Checkpoint:
        """The checkpoint that answers now."""
        request = student_pb2.GetServingRequest()
        with _domain_errors():
            checkpoint: student_pb2.Checkpoint = self._checkpoints.GetServing(request, timeout=ASK_SECONDS).checkpoint
        return checkpoint

    def swap(self, version: int, timeout: float = SWAP_SECONDS) -> Mapping[str, Any]:
        """Let a version serve; returns `from`, `to` and `phases_ms`."""
        request = student_pb2.SwapCheckpointRequest(version=version)
        with _domain_errors():
            report = self._checkpoints.SwapCheckpoint(request, timeout=timeout, metadata=self._metadata)
        return {"from": report.from_version, "to": report.to_version, "phases_ms": dict(report.phases_ms)}

    def roll_back(self, timeout: float = SWAP_SECONDS) -> Mapping[str, Any]:
        """Let the version serve that served before; returns `from` and `to`."""
        request = student_pb2.RollBackCheckpointRequest()
        with _domain_errors():
            report = self._checkpoints.RollBackCheckpoint(request, timeout=timeout, metadata=self._metadata)
        return {"from": report.from_version, "to": report.to_version}

    def _call(self, method: str, request: Any, timeout: float, request_id: str) -> tuple[Any, str]:
        """What a method of the student says to a request, and the request's id."""
        with _asking(method, request_id) as (name, metadata):
            attempts = Attempts(timeout, self._retry)
            while True:
                try:
                    return getattr(self._student, method)(request, timeout=attempts.left, metadata=metadata), name
                except grpc.RpcError as error:
                    time.sleep(attempts.pause_after(error))


class AsyncStudent:
    """Asks the student service as `Student` does, in an event loop: make it inside the loop that uses it.

    Cancelling the task that asks, or leaving a stream, stops the answer in the service.
    """

    def __init__(self, url: str, tls: ClientTls | None = None, *, retry: bool = True) -> None:
        self.url = url
        self._retry = retry
        self._channel = rpc.aio_channel(url, tls)
        self._student: Any = student_pb2_grpc.StudentServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close(None)

    async def ask(
        self,
        question: Question | str,
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> StudentReply:
        """See `Student.ask`. Pictures that are not encoded yet are encoded in a thread."""
        request = await asyncio.to_thread(_request, question, images, max_new_tokens)
        return _reply(*await self._call("Reason", request, timeout, request_id))

    async def ask_many(
        self,
        questions: Sequence[Question | str],
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> list[StudentReply]:
        """See `Student.ask_many`."""
        request = await asyncio.to_thread(_request_many, questions, images, max_new_tokens)
        message, name = await self._call("ReasonMany", request, timeout, request_id)
        return [_reply(reply, name) for reply in message.replies]

    async def stream(
        self,
        question: Question | str,
        images: Sequence[Picture],
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
        request_id: str = "",
    ) -> AsyncIterator[str | StudentReply]:
        """See `Student.stream`."""
        request = await asyncio.to_thread(_request, question, images, max_new_tokens)
        with _asking("ReasonStream", request_id) as (name, metadata):
            attempts, has_begun = Attempts(timeout, self._retry), False
            while True:
                call = self._student.ReasonStream(request, timeout=attempts.left, metadata=metadata)
                try:
                    async for message in call:
                        has_begun = True
                        yield _piece(message, name)
                    return
                except grpc.RpcError as error:
                    await asyncio.sleep(attempts.pause_after(error, may_repeat=not has_begun))
                finally:
                    call.cancel()

    async def _call(self, method: str, request: Any, timeout: float, request_id: str) -> tuple[Any, str]:
        with _asking(method, request_id) as (name, metadata):
            attempts = Attempts(timeout, self._retry)
            while True:
                try:
                    return await getattr(self._student, method)(request, timeout=attempts.left, metadata=metadata), name
                except grpc.RpcError as error:
                    await asyncio.sleep(attempts.pause_after(error))


@contextmanager
def _asking(method: str, request_id: str) -> Iterator[tuple[str, Metadata]]:
    """Trace a question with all its attempts; yields its id and the metadata that it goes out with."""
    name = request_id or uuid.uuid4().hex
    with tracing.client_span(f"student.{method}") as context:
        yield name, ((REQUEST_ID, name), *context)


@contextmanager
def _domain_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise_domain_error(error)


def _request(question: Question | str, images: Sequence[Picture], max_new_tokens: int) -> student_pb2.ReasonRequest:
    return student_pb2.ReasonRequest(**_asked(question), images=_images(images), max_new_tokens=max_new_tokens)


def _request_many(
    questions: Sequence[Question | str], images: Sequence[Picture], max_new_tokens: int
) -> student_pb2.ReasonManyRequest:
    asked = [student_pb2.AskedQuestion(**_asked(question)) for question in questions]
    return student_pb2.ReasonManyRequest(questions=asked, images=_images(images), max_new_tokens=max_new_tokens)


def _asked(question: Question | str) -> dict[str, Any]:
    if isinstance(question, Question):
        return {"task": question_to_proto(question)}
    if isinstance(question, str):
        return {"text": question}
    raise TypeError(f"a question is a Question or a text, not {type(question).__name__}")


def _images(pictures: Sequence[Picture]) -> list[spatial_pb2.Image]:
    return [spatial_pb2.Image(data=encode_picture(picture)) for picture in pictures]


def _piece(message: student_pb2.ReasonStreamResponse, request_id: str) -> str | StudentReply:
    return _reply(message.reply, request_id) if message.HasField("reply") else message.delta


def _reply(message: student_pb2.ReasonResponse, request_id: str) -> StudentReply:
    return StudentReply(
        text=message.text,
        answer=answer_from_proto(message),
        probability=message.probability,
        version=message.checkpoint_version,
        prompt_tokens=message.prompt_tokens,
        answer_tokens=message.answer_tokens,
        queue_ms=message.queue_ms,
        generate_ms=message.generate_ms,
        request_id=request_id,
    )
