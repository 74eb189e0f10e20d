"""The student's client."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc

from world2vlm.convert import answer_from_proto, question_to_proto
from world2vlm.rpc import channel, raise_domain_error
from world2vlm.tasks import Answer, Question
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
        queue_ms, generate_ms: milliseconds waited, and milliseconds of the batch that the question was in.
    """

    text: str
    answer: Answer | None
    probability: float
    version: str
    prompt_tokens: int
    answer_tokens: int
    queue_ms: float
    generate_ms: float


class StudentClient:
    """Asks the student service at `host:port`; with the control token it can also change what serves.

    Every method raises the errors of `world2vlm.errors`; UnavailableError also where nobody answers in time.
    """

    def __init__(self, url: str, token: str | None = None, ca: Path | None = None) -> None:
        self.url = url
        self._channel = channel(url, ca)
        # The generated stubs are untyped.
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
        images: Sequence[bytes],
        question: Question | str,
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
    ) -> StudentReply:
        """Ask one question.

        Args:
            images: one or two encoded pictures, oldest first.
            question: a task's, or free text.
            max_new_tokens: where to stop at the latest; 0 = as late as the service allows.
            timeout: seconds.
        """
        with _domain_errors():
            return _reply(self._student.Reason(_request(images, question, max_new_tokens), timeout=timeout))

    def stream(
        self,
        images: Sequence[bytes],
        question: Question | str,
        max_new_tokens: int = 0,
        timeout: float = ASK_SECONDS,
    ) -> Iterator[str | StudentReply]:
        """Ask as `ask` does; yields the text's pieces as they come, then the whole reply."""
        with _domain_errors():
            for message in self._student.ReasonStream(_request(images, question, max_new_tokens), timeout=timeout):
                yield _reply(message.reply) if message.HasField("reply") else message.delta

    def checkpoints(self) -> list[student_pb2.Checkpoint]:
        """All published checkpoints, by ascending version."""
        with _domain_errors():
            response = self._checkpoints.ListCheckpoints(student_pb2.ListCheckpointsRequest(), timeout=ASK_SECONDS)
        return list(response.checkpoints)

    def serving(self) -> student_pb2.Checkpoint:
        """The checkpoint that answers now."""
        with _domain_errors():
            response: student_pb2.GetServingResponse = self._checkpoints.GetServing(
                student_pb2.GetServingRequest(), timeout=ASK_SECONDS
            )
        return response.checkpoint

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


@contextmanager
def _domain_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise_domain_error(error)


def _request(images: Sequence[bytes], question: Question | str, max_new_tokens: int) -> student_pb2.ReasonRequest:
    request = student_pb2.ReasonRequest(
        images=[spatial_pb2.Image(data=data) for data in images], max_new_tokens=max_new_tokens
    )
    if isinstance(question, Question):
        request.task.CopyFrom(question_to_proto(question))
    else:
        request.text = question
    return request


def _reply(message: student_pb2.ReasonResponse) -> StudentReply:
    return StudentReply(
        text=message.text,
        answer=answer_from_proto(message),
        probability=message.probability,
        version=message.checkpoint_version,
        prompt_tokens=message.prompt_tokens,
        answer_tokens=message.answer_tokens,
        queue_ms=message.queue_ms,
        generate_ms=message.generate_ms,
    )
