"""The engine in another process: the streaming student in a Triton server, asked through tritonclient."""

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from student_service.engines.base import Query, Update, answer
from student_service.triton import wire
from world2vlm.checkpoints import Manifest
from world2vlm.errors import DataCorruptedError, PreconditionError, UnavailableError, World2VLMError
from world2vlm.images import encode_png

# How long `step` waits for news: who steps may have other engines, too.
_NEWS_S = 0.005
_CLOSE_S = 5.0
_INDEX_S = 10.0
_PROBE = Query((encode_png(np.full((32, 32, 3), 128, np.uint8)),), "Is anybody there?")


@dataclass(frozen=True)
class Served:
    """Who answered: Triton's version of the model, and the checkpoint in it, by its version and its digest."""

    number: int
    checkpoint: int
    digest: str


@dataclass(eq=False)
class _Asked:
    key: int
    task: "Future[None] | None" = None


class TritonEngine:
    """One version of a model in a Triton server, behind the engine port (`student_service.engines.base.Engine`).

    Each query is a gRPC call of its own on one connection, so that dropping it cancels it in Triton, too.

    Args:
        url: `host:port` of the server's gRPC endpoint.
        model: the model's name; the streaming one, or the unary one, which answers in one piece.
        number: the model's version to ask; 0: the newest.
        capacity: queries at once.
        deadline_s: how long an answer may take in all.

    Attributes:
        capacity: queries at once.
        served: who gave the last reply; None before the first.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = wire.STREAM_MODEL,
        number: int = 0,
        capacity: int = 8,
        deadline_s: float = 60.0,
    ) -> None:
        self.capacity = capacity
        self.served: Served | None = None
        self._model = model
        self._number = number
        self._deadline_s = deadline_s
        self._asked: dict[int, _Asked] = {}
        self._news: queue.SimpleQueue[tuple[_Asked, Update] | None] = queue.SimpleQueue()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="triton-engine", daemon=True)
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(_connect(url), self._loop).result()

    def admit(self, key: int, query: Query, max_new_tokens: int, streams: bool = False) -> None:
        """See `Engine.admit`; pieces come as the model sends them, wanted or not."""
        self._check_open()
        wire.check_query(query)
        asked = self._asked[key] = _Asked(key)
        asked.task = asyncio.run_coroutine_threadsafe(self._ask(asked, query, max_new_tokens), self._loop)

    def drop(self, key: int) -> None:
        """See `Engine.drop`."""
        asked = self._asked.pop(key, None)
        if asked is not None and asked.task is not None:
            asked.task.cancel()

    def step(self) -> list[Update]:
        """See `Engine.step`."""
        self._check_open()
        updates: list[Update] = []
        with suppress(queue.Empty):
            while self._asked:
                news = self._news.get(timeout=0 if updates else _NEWS_S)
                if news is None:  # woken
                    break
                asked, update = news
                # What was dropped may have left news behind, and its key may have been given out again.
                if self._asked.get(update.key) is asked:
                    updates.append(update)
                    if update.reply is not None or update.error is not None:
                        del self._asked[update.key]
        return updates

    def wake(self) -> None:
        """See `Engine.wake`."""
        self._news.put(None)

    def serve(self) -> None:
        """See `Engine.serve`: whose turn it is on its machine is Triton's affair."""

    def close(self) -> None:
        """See `Engine.close`."""
        if self._closed:
            return
        self._closed = True
        for key in list(self._asked):
            self.drop(key)
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    async def _disconnect(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def _ask(self, asked: _Asked, query: Query, max_new_tokens: int) -> None:
        """Put one query's updates into the queue; the last is its end, whatever happens."""
        try:
            async with asyncio.timeout(self._deadline_s):
                async for update in self._answers(
                    asked.key, wire.write_query(query), wire.write_parameters(query, max_new_tokens)
                ):
                    self._news.put((asked, update))
                    if update.reply is not None:
                        return
            raise UnavailableError("Triton's answer has no end")
        except TimeoutError:
            error: Exception = UnavailableError(f"Triton did not answer within {self._deadline_s:g} s")
        except World2VLMError as known:
            error = known
        except InferenceServerException as failed:
            error = wire.read_error(failed)
        except grpc.RpcError as failed:
            call: Any = failed
            error = wire.read_error(InferenceServerException(call.details() or "", str(call.code())))
        except Exception as unknown:
            error = unknown
        self._news.put((asked, Update(asked.key, error=error)))

    async def _answers(self, key: int, inputs: list[Any], parameters: dict[str, Any]) -> AsyncIterator[Update]:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {
                "model_name": self._model,
                "model_version": str(self._number or ""),
                "inputs": inputs,
                "parameters": parameters,
            }

        responses = self._client.stream_infer(requests())
        said = ""
        try:
            async for result, error in responses:
                if error is not None:
                    raise error
                if (delta := wire.read_text(result, wire.DELTA)) is not None:
                    said += delta
                    yield Update(key, delta)
                else:
                    reply = wire.read_reply(result)
                    self._note(result)
                    yield Update(key, reply.text[len(said) :], reply)
        finally:
            # Where the answer has ended this does nothing; else it stops Triton's work on it.
            responses.cancel()

    def _note(self, result: Any) -> None:
        response = result.get_response()
        checkpoint = int(result.as_numpy(wire.VERSION).item())
        self.served = Served(int(response.model_version), checkpoint, wire.read_text(result, wire.DIGEST) or "")


async def _connect(url: str) -> Any:
    return tritonclient.grpc.aio.InferenceServerClient(url)


def load(folder: Path, url: str, capacity: int = 8, deadline_s: float = 60.0) -> TritonEngine:
    """Find the version of the streaming model that serves a checkpoint, and ask no other.

    Args:
        folder: the checkpoint's files with its manifest, which is all that is read here.
        url: `host:port` of the server's gRPC endpoint.
        capacity: queries at once.
        deadline_s: how long an answer may take in all.

    Raises:
        PreconditionError: the checkpoint is unfit, or no version in Triton serves it: it must be deployed there first.
        UnavailableError: Triton does not answer.
    """
    try:
        manifest = Manifest.from_json(json.loads((folder / "manifest.json").read_bytes()))
    except (OSError, ValueError, DataCorruptedError) as error:
        raise PreconditionError(f"the checkpoint is unfit: {error}") from error
    return TritonEngine(url, number=_find(url, manifest), capacity=capacity, deadline_s=deadline_s)


def probe(url: str, model: str = wire.STREAM_MODEL, number: int = 0, deadline_s: float = 10.0) -> Served:
    """Ask one version of a model for one token, and return who answered.

    Raises:
        World2VLMError: it gave no answer in time, or an error.
    """
    with closing(TritonEngine(url, model=model, number=number, deadline_s=deadline_s)) as engine:
        answer(engine, [_PROBE], 1)
        served = engine.served
    assert served is not None, "a reply says who gave it"
    return served


def ready_versions(url: str, model: str) -> list[int]:
    """The versions of a model that are ready in Triton, ascending.

    Raises:
        UnavailableError: Triton does not answer.
    """
    try:
        with triton.InferenceServerClient(url) as client:
            index = client.get_model_repository_index(client_timeout=_INDEX_S).models
    except InferenceServerException as error:
        raise wire.read_error(error) from error
    return sorted(int(entry.version) for entry in index if entry.name == model and entry.state == "READY")


def _find(url: str, manifest: Manifest) -> int:
    for number in reversed(ready_versions(url, wire.STREAM_MODEL)):
        # One that is dead or busy is not the one, or not now.
        with suppress(World2VLMError):
            if probe(url, number=number).digest == manifest.digest:
                return number
    raise PreconditionError(f"no model in Triton serves version {manifest.version}: deploy it there first")
