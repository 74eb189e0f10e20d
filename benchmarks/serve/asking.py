"""Asking over each side's own protocol: one way to ask, so that one loop can load all of them."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import tritonclient.grpc.aio

from benchmarks.serve.questions import Item, message_of_all
from student_service.triton import wire
from world2vlm.rpc import aio_channel
from world2vlm.v1 import student_pb2

DEADLINE_S = 60.0
_SERVICE = "/world2vlm.v1.StudentService/"
OK = "OK"
BROKEN = "BROKEN STREAM"


@dataclass(frozen=True)
class Told:
    """What came back: a status's name, and the answer where it is OK."""

    status: str
    text: str = ""
    version: str = ""
    tokens: int = 0


class Asker(Protocol):
    """One connection to one side; made, used and closed in one event loop."""

    async def ask(self, index: int, *, stream: bool = False) -> Told:
        """Ask the question with that index, all at once or piece by piece."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class GrpcAsker:
    """Our protocol. The requests are serialised beforehand; `typed` false asks all of them as free text."""

    def __init__(self, url: str, items: Sequence[Item], *, typed: bool = True) -> None:
        self._messages = [item.message(typed=typed) for item in items]
        self._all = message_of_all(items) if len({item.images for item in items}) == 1 else b""
        self._channel = _open(url)
        read, read_piece = student_pb2.ReasonResponse.FromString, student_pb2.ReasonStreamResponse.FromString
        self._unary = self._channel.unary_unary(f"{_SERVICE}Reason", response_deserializer=read)
        self._many = self._channel.unary_unary(
            f"{_SERVICE}ReasonMany", response_deserializer=student_pb2.ReasonManyResponse.FromString
        )
        self._stream = self._channel.unary_stream(f"{_SERVICE}ReasonStream", response_deserializer=read_piece)

    async def ask(self, index: int, *, stream: bool = False) -> Told:
        """See `Asker.ask`."""
        message = self._messages[index]
        try:
            if stream:
                return await self._ask_stream(message)
            return _told(await self._unary(message, timeout=DEADLINE_S))
        except grpc.RpcError as error:
            call: Any = error
            return Told(call.code().name)

    async def ask_all(self) -> list[Told]:
        """Ask all questions in one call; they must be about the same pictures."""
        assert self._all, "the questions are about several pictures"
        return [_told(reply) for reply in (await self._many(self._all, timeout=DEADLINE_S)).replies]

    async def _ask_stream(self, message: bytes) -> Told:
        pieces, reply = [], None
        async for part in self._stream(message, timeout=DEADLINE_S):
            if part.HasField("reply"):
                reply = part.reply
            else:
                pieces.append(part.delta)
        # A stream that ends without its reply, or whose pieces are not the answer, is a failure, too.
        if reply is None or "".join(pieces) != reply.text:
            return Told(BROKEN)
        return _told(reply)

    async def close(self) -> None:
        """See `Asker.close`."""
        await self._channel.close(None)


class TritonAsker:
    """Triton's protocol, the unary model."""

    def __init__(self, url: str, items: Sequence[Item]) -> None:
        self._client = tritonclient.grpc.aio.InferenceServerClient(url)
        self._inputs = [(wire.write_query(item.query), wire.write_parameters(item.query, 0)) for item in items]

    async def ask(self, index: int, *, stream: bool = False) -> Told:
        """See `Asker.ask`; there are no streams here."""
        inputs, parameters = self._inputs[index]
        try:
            result = await self._client.infer(
                wire.UNARY_MODEL, inputs, parameters=parameters, client_timeout=DEADLINE_S
            )
        except tritonclient.grpc.aio.InferenceServerException as error:
            return Told(str(error.status()).removeprefix("StatusCode."))
        reply = wire.read_reply(result)
        return Told(OK, reply.text, str(result.as_numpy(wire.VERSION).item()), reply.answer_tokens)

    async def close(self) -> None:
        """See `Asker.close`."""
        await self._client.close()


class HttpAsker:
    """LitServe's protocol: JSON over HTTP/1.1 connections that are kept, as many as there are callers."""

    def __init__(self, host: str, port: int, items: Sequence[Item]) -> None:
        self._address = host, port
        self._requests = [_http(host, item) for item in items]
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, index: int, *, stream: bool = False) -> Told:
        """See `Asker.ask`; there are no streams here."""
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(*self._address)
        writer.write(self._requests[index])
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.startswith("content-length"))
        body = await reader.readexactly(length)
        self._free.append((reader, writer))
        status = head.split(" ", 2)[1]
        if status != "200":
            return Told(f"HTTP {status}")
        answer: Mapping[str, Any] = json.loads(body)
        return Told(OK, answer["text"], "", answer["tokens"])

    async def close(self) -> None:
        """See `Asker.close`."""
        for _, writer in self._free:
            writer.close()


def _open(url: str) -> Any:
    """A connection whose requests are bytes already, which its annotations do not know."""
    return aio_channel(url)


def _told(reply: student_pb2.ReasonResponse) -> Told:
    return Told(OK, reply.text, reply.checkpoint_version, reply.answer_tokens)


def _http(host: str, item: Item) -> bytes:
    images = [base64.b64encode(data).decode() for data in item.images]
    body = json.dumps({"images": images, "text": item.text}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body
