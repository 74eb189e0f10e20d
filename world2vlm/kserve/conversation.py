"""One `ModelStreamInfer` call: several requests, answered at the same time, over one stream."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2

from world2vlm.emitting import emitted
from world2vlm.errors import World2VLMError
from world2vlm.kserve.tensors import Model, find_model

_log = logging.getLogger(__name__)

# Requests of one stream whose responses its caller has not taken yet; further ones are not even read.
_MOST_AT_ONCE = 64

Request: TypeAlias = service_pb2.ModelInferRequest
Response: TypeAlias = service_pb2.ModelInferResponse
StreamResponse: TypeAlias = service_pb2.ModelStreamInferResponse
Infer = Callable[[Model, Request, Callable[[Response], None]], Awaitable[Response]]


def is_strict(context: grpc.aio.ServicerContext[Any, Any]) -> bool:
    """Whether the caller wants the call to end with a status at the first error (Triton's `triton_grpc_error`)."""
    return str(dict(context.invocation_metadata() or ()).get("triton_grpc_error", "")).lower() == "true"


@dataclass(frozen=True)
class _Said:
    """One response; the last of its request says so and, where that failed, how."""

    response: StreamResponse
    final: bool = False
    error: World2VLMError | None = None


class Conversation:
    """The requests of one call and their responses.

    Each response says by the parameter `triton_final_response` whether it is its request's last, which is never empty:
    `triton_enable_empty_final_response` needs no attention. An error is a response, and the call goes on; in a strict
    conversation it ends the call.
    """

    def __init__(
        self, models: Mapping[str, Model], infer: Infer, requests: AsyncIterator[Request], *, strict: bool
    ) -> None:
        self._models = models
        self._infer = infer
        self._requests = requests
        self._strict = strict
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)

    async def responses(self) -> AsyncGenerator[StreamResponse, None]:
        """The responses to all requests, as they come."""
        async with aclosing(emitted(self._converse)) as everything:
            async for said in everything:
                if said.error is not None and self._strict:
                    raise said.error
                yield said.response
                if said.final:
                    self._room.release()

    async def _converse(self, emit: Callable[[_Said], None]) -> None:
        tasks: set[asyncio.Task[None]] = set()
        before: asyncio.Task[None] | None = None
        try:
            async for request in self._requests:
                await self._room.acquire()
                decoupled = request.model_name in self._models and self._models[request.model_name].decoupled
                task = asyncio.create_task(self._answer(request, None if decoupled else before, emit))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                before = before if decoupled else task
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _answer(self, request: Request, before: asyncio.Task[None] | None, emit: Callable[[_Said], None]) -> None:
        """Answer one request; with a task `before`, the response waits for that one's."""

        def on_piece(piece: Response) -> None:
            emit(_Said(_message(piece, final=False)))

        try:
            response = await self._infer(find_model(self._models, request.model_name), request, on_piece)
            said = _Said(_message(response, final=True), final=True)
        except World2VLMError as error:
            said = _Said(_failure(request, str(error)), final=True, error=error)
        except Exception:
            _log.exception("a request in a stream failed")
            hidden = World2VLMError("internal error")
            said = _Said(_failure(request, str(hidden)), final=True, error=hidden)
        if before is not None:
            # Responses of a model that is not decoupled keep the order of their requests.
            await asyncio.wait([before])
        emit(said)


def _failure(request: Request, text: str) -> StreamResponse:
    response = Response(model_name=request.model_name, model_version=request.model_version, id=request.id)
    message = _message(response, final=True)
    message.error_message = text
    return message


def _message(response: Response, *, final: bool) -> StreamResponse:
    response.parameters["triton_final_response"].bool_param = final
    return StreamResponse(infer_response=response)
