"""The student as Triton's python backend runs it: the same loader, engine port and batcher as in our own service.

`model.py` in the model repository only hands this module the backend's API. Tensors come and go as torch tensors
through DLPack: outputs made of numpy 2 arrays arrive empty, without an error.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from student_service import canary
from student_service.batching import Batcher, CancelledQueryError, Outcome
from student_service.engines.base import Query, answer
from student_service.engines.loading import in_process
from student_service.slots import Slot
from student_service.triton import wire
from student_service.triton.repository import Deployment
from world2vlm import telemetry
from world2vlm.errors import InvalidInputError, OverloadedError, World2VLMError
from world2vlm.kserve.backend import CANCEL_POLL_S, failed
from world2vlm.kserve.marks import mark
from world2vlm.tasks import get_task


@dataclass(frozen=True)
class _Asked:
    request: Any
    future: Future[Outcome]


class StudentModel:
    """What both models share: loading, reading requests, writing responses.

    Attributes:
        backend: the module `triton_python_backend_utils`, which exists in Triton's stub process only.
    """

    backend: Any

    def initialize(self, args: Mapping[str, str]) -> None:
        """Verify, load and warm up the checkpoint of this version's folder; Triton calls it before any request."""
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            deployment = Deployment.read(folder)
            self._settings = deployment.settings()
            telemetry.configure_logging(self._settings.log_format, self._settings.log_level)
            with deployment.fetched() as weights:
                engine = in_process(self._settings)(weights)
            for batch in canary.warm_batches(engine.capacity):
                answer(engine, batch, canary.WARM_NEW_TOKENS)
        except World2VLMError as error:
            raise self.backend.TritonModelException(mark(error)) from error
        self._digest = deployment.digest
        self._batcher = Batcher(self._settings.max_batch)
        self._slot = Slot(deployment.version, engine)

    def finalize(self) -> None:
        """Release the weights; Triton calls it when the last request has ended."""
        self._batcher.close()
        self._slot.retire()

    def _read(self, request: Any) -> tuple[Query, int]:
        images = [data for name in wire.IMAGES if (data := self._bytes_of(request, name)) is not None]
        task, limit = wire.read_parameters(request.parameters())
        settings = self._settings
        if task and get_task(task).images != len(images):
            raise InvalidInputError(f"task {task} takes {get_task(task).images} images, not {len(images)}")
        if limit > settings.max_new_tokens:
            raise InvalidInputError(f"an answer has at most {settings.max_new_tokens} tokens, not {limit}")
        try:
            text = (self._bytes_of(request, wire.QUESTION) or b"").decode()
        except UnicodeDecodeError as error:
            raise InvalidInputError("the question is no UTF-8") from error
        return Query(tuple(images), text, task), limit or settings.max_new_tokens

    def _bytes_of(self, request: Any, name: str) -> bytes | None:
        tensor = self.backend.get_input_tensor_by_name(request, name)
        if tensor is None:
            return None
        shape = tuple(tensor.shape())
        if len(shape) != 2 or shape[0] != 1:
            raise InvalidInputError(f"{name} has the shape {shape}; a request has one question: (1, bytes)")
        return from_dlpack(tensor).numpy().tobytes() if shape[1] else b""

    def _admit(self) -> None:
        # Triton's own bound does not hold for requests that a model has taken and not answered yet.
        under_way = self._batcher.waiting + self._batcher.running
        if under_way >= self._settings.max_batch + self._settings.max_queue:
            raise OverloadedError(f"{under_way} requests are under way already; try again later")

    def _text(self, name: str, text: str) -> Any:
        return self._tensor(name, torch.tensor(list(text.encode()), dtype=torch.uint8))

    def _tensor(self, name: str, values: torch.Tensor) -> Any:
        return self.backend.Tensor.from_dlpack(name, values.unsqueeze(0))

    def _answered(self, outcome: Outcome) -> Any:
        reply = outcome.reply
        figures = (reply.prompt_tokens, reply.answer_tokens, outcome.version)
        names = (wire.PROMPT_TOKENS, wire.ANSWER_TOKENS, wire.VERSION)
        return self.backend.InferenceResponse(
            [
                self._text(wire.TEXT, reply.text),
                self._text(wire.DIGEST, self._digest),
                self._tensor(wire.PROBABILITY, torch.tensor([reply.probability], dtype=torch.float64)),
                *(
                    self._tensor(name, torch.tensor([figure], dtype=torch.int64))
                    for name, figure in zip(names, figures, strict=True)
                ),
            ]
        )

    def _failed(self, error: BaseException) -> Any:
        return failed(self.backend, error, CancelledQueryError, "a question")

    def _response(self, future: Future[Outcome]) -> Any:
        error = CancelledQueryError() if future.cancelled() else future.exception()
        return self._answered(future.result()) if error is None else self._failed(error)


class UnaryModel(StudentModel):
    """One response for each request; Triton's dynamic batcher brings what waits together."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer a batch."""
        asked = [_Asked(request, self._ask(request)) for request in requests]
        while waiting := [one for one in asked if not one.future.done()]:
            wait([one.future for one in waiting], timeout=CANCEL_POLL_S)
            for one in waiting:
                if one.request.is_cancelled():
                    one.future.cancel()
        return [self._response(one.future) for one in asked]

    def _ask(self, request: Any) -> Future[Outcome]:
        try:
            query, limit = self._read(request)
        except Exception as error:
            failed: Future[Outcome] = Future()
            failed.set_exception(error)
            return failed
        return self._batcher.submit(self._slot, query, limit)


class StreamModel(StudentModel):
    """A response for each piece of text, then one with the whole answer and the final flag."""

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue the requests; their responses come from the batcher's thread."""
        for request in requests:
            stream = _Stream(self, request.get_response_sender())
            try:
                self._admit()
                query, limit = self._read(request)
            except Exception as error:
                stream.end(self._failed(error))
            else:
                self._begin(stream, query, limit)

    def _begin(self, stream: "_Stream", query: Query, limit: int) -> None:
        stream.future = self._batcher.submit(self._slot, query, limit, stream.add)
        stream.future.add_done_callback(lambda future: stream.end(self._response(future)))

    def piece(self, text: str) -> Any:
        """The response that adds text."""
        return self.backend.InferenceResponse([self._text(wire.DELTA, text)])


class _Stream:
    """One request of the streaming model, and where its responses go."""

    def __init__(self, model: StreamModel, sender: Any) -> None:
        self._model = model
        self._sender = sender
        self.future: Future[Outcome] | None = None

    def add(self, text: str) -> None:
        if not self._sender.is_cancelled():
            self._sender.send(self._model.piece(text))
        elif self.future is not None:
            self.future.cancel()

    def end(self, response: Any) -> None:
        self._sender.send(response, flags=self._model.backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
