"""The student's gRPC services: they translate, and `reasoner` and `swap` do the work."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from student_service.control import Control
from student_service.reasoner import Answered, Reasoner
from student_service.slots import Serving
from student_service.swap import Swapper
from world2vlm.checkpoints import Manifest, Registry
from world2vlm.convert import answer_to_proto, question_from_proto
from world2vlm.emitting import emitted
from world2vlm.errors import InvalidInputError, UnavailableError
from world2vlm.tasks import Question
from world2vlm.v1 import student_pb2, student_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class StudentServicer(student_pb2_grpc.StudentServiceServicer):
    """`world2vlm.v1.StudentService`."""

    def __init__(self, reasoner: Reasoner) -> None:
        self._reasoner = reasoner

    async def Reason(self, request: student_pb2.ReasonRequest, context: Context) -> student_pb2.ReasonResponse:
        """Answer one question."""
        return await self._reason(request)

    async def ReasonStream(
        self, request: student_pb2.ReasonRequest, context: Context
    ) -> AsyncIterator[student_pb2.ReasonStreamResponse]:
        """Answer one question piece by piece, then whole."""
        async with aclosing(emitted(partial(self._stream, request))) as messages:
            async for message in messages:
                yield message

    async def ReasonMany(
        self, request: student_pb2.ReasonManyRequest, context: Context
    ) -> student_pb2.ReasonManyResponse:
        """Answer several questions about the same images."""
        self._reasoner.check_questions(len(request.questions))
        questions = [_question(asked) for asked in request.questions]
        images = [image.data for image in request.images]
        answered = await self._reasoner.answer_many(images, questions, request.max_new_tokens)
        return student_pb2.ReasonManyResponse(replies=map(_response, questions, answered))

    async def _stream(
        self, request: student_pb2.ReasonRequest, emit: Callable[[student_pb2.ReasonStreamResponse], None]
    ) -> None:
        reply = await self._reason(request, lambda text: emit(student_pb2.ReasonStreamResponse(delta=text)))
        emit(student_pb2.ReasonStreamResponse(reply=reply))

    async def _reason(
        self, request: student_pb2.ReasonRequest, on_text: Callable[[str], None] | None = None
    ) -> student_pb2.ReasonResponse:
        question = _question(request)
        images = [image.data for image in request.images]
        return _response(question, await self._reasoner.answer(images, question, request.max_new_tokens, on_text))


class CheckpointServicer(student_pb2_grpc.CheckpointServiceServicer):
    """`world2vlm.v1.CheckpointService`."""

    def __init__(self, registry: Registry, serving: Serving, swapper: Swapper, control: Control) -> None:
        self._registry = registry
        self._serving = serving
        self._swapper = swapper
        self._control = control

    async def ListCheckpoints(
        self, request: student_pb2.ListCheckpointsRequest, context: Context
    ) -> student_pb2.ListCheckpointsResponse:
        """List all published checkpoints."""
        manifests = await self._control.run(self._registry.list)
        return student_pb2.ListCheckpointsResponse(checkpoints=map(_checkpoint, manifests))

    async def GetServing(
        self, request: student_pb2.GetServingRequest, context: Context
    ) -> student_pb2.GetServingResponse:
        """Describe the checkpoint that answers now."""
        version = self._serving.version
        if version is None:
            raise UnavailableError("no checkpoint serves yet")
        manifest = await self._control.run(partial(self._registry.get, version))
        return student_pb2.GetServingResponse(checkpoint=_checkpoint(manifest))

    async def SwapCheckpoint(
        self, request: student_pb2.SwapCheckpointRequest, context: Context
    ) -> student_pb2.SwapCheckpointResponse:
        """Let another checkpoint serve. A swap that began runs to its end though its caller leaves."""
        self._control.authorise(context)
        report = await self._control.run(partial(self._swapper.swap, request.version))
        return student_pb2.SwapCheckpointResponse(
            from_version=report.from_version or 0, to_version=report.to_version, phases_ms=report.phases_ms
        )

    async def RollBackCheckpoint(
        self, request: student_pb2.RollBackCheckpointRequest, context: Context
    ) -> student_pb2.RollBackCheckpointResponse:
        """Let the checkpoint serve that served before."""
        self._control.authorise(context)
        report = await self._control.run(self._swapper.roll_back)
        return student_pb2.RollBackCheckpointResponse(
            from_version=report.from_version or 0, to_version=report.to_version
        )


def _question(request: student_pb2.ReasonRequest | student_pb2.AskedQuestion) -> Question | str:
    match request.WhichOneof("question"):
        case "task":
            return question_from_proto(request.task)
        case "text":
            return request.text
        case _:
            raise InvalidInputError("the request has neither a task nor a text")


def _response(question: Question | str, answered: Answered) -> student_pb2.ReasonResponse:
    outcome = answered.outcome
    message = student_pb2.ReasonResponse(
        text=outcome.reply.text,
        probability=outcome.reply.probability,
        checkpoint_version=str(outcome.version),
        prompt_tokens=outcome.reply.prompt_tokens,
        answer_tokens=outcome.reply.answer_tokens,
        queue_ms=outcome.queue_ms,
        generate_ms=outcome.generate_ms,
    )
    if isinstance(question, Question) and answered.answer is not None:
        answer_to_proto(question.task, answered.answer, message)
    return message


def _checkpoint(manifest: Manifest) -> student_pb2.Checkpoint:
    return student_pb2.Checkpoint(
        name=manifest.name,
        version=manifest.version,
        digest=manifest.digest,
        parent_version=manifest.parent or 0,
        kind=manifest.kind,
        recipe=manifest.recipe,
        dataset_digest=manifest.dataset_digest,
        metrics=manifest.metrics,
        created=manifest.created,
    )
