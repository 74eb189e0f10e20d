"""Mutated requests over a real socket: each gets an answer or a plain refusal, and the service answers on."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.mutations import Mutator
from benchmarks.serve.sides import Side
from benchmarks.serve.usage import Usage
from world2vlm.rpc import aio_channel
from world2vlm.v1 import student_pb2

# Whatever a caller sends, nothing else may come back.
ALLOWED = ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
_METHODS = ("Reason", "ReasonStream", "ReasonMany")
_AT_ONCE = 16
_HANGS_S = 30.0


@dataclass(frozen=True)
class Fuzzed:
    """What came of it: statuses, how often each; the requests that got one that nobody should get; the longest."""

    statuses: dict[str, int]
    bad: list[tuple[str, bytes]]
    longest_s: float


def fuzz(side: Side, seeds: Sequence[bytes], count: int, seed: int) -> Part:
    """Send `count` mutated requests to our service and see that it lives."""
    first = Usage.of(side.pid)
    found = asyncio.run(send_mutated(side.url, seeds, count, seed))
    growth = (Usage.of(side.pid).memory - first.memory) / 1e6
    healthy = asyncio.run(send(side.url, seeds))
    statuses = {
        "statuses": found.statuses,
        "bad ones": [f"{status} {data.hex()[:400]}" for status, data in found.bad[:5]],
    }
    figures = {"requests": count, "seed": seed, **statuses, "longest, s": found.longest_s, "growth, MB": growth}
    claims = [
        Claim("mutated requests sent", count, 10_000, True),
        Claim("neither answered nor plainly refused", len(found.bad), 0),
        Claim("longest, s", found.longest_s, _HANGS_S),
        Claim("good requests that fail afterwards", sum(status != "OK" for status in healthy), 0),
    ]
    return Part(figures, claims)


async def send_mutated(url: str, seeds: Sequence[bytes], count: int, seed: int) -> Fuzzed:
    """Send mutated requests, several at once, to each of the methods in turn."""
    mutator, places = Mutator(seeds, seed), asyncio.Semaphore(_AT_ONCE)
    statuses: Counter[str] = Counter()
    bad: list[tuple[str, bytes]] = []
    loop, longest = asyncio.get_running_loop(), 0.0

    async def one(channel: grpc.aio.Channel, method: str, message: bytes) -> None:
        nonlocal longest
        start = loop.time()
        try:
            status = await _send(channel, method, message)
        finally:
            places.release()
        longest = max(longest, loop.time() - start)
        statuses[status] += 1
        if status not in ALLOWED:
            bad.append((status, message))

    async with aio_channel(url) as channel, asyncio.TaskGroup() as group:
        for number in range(count):
            await places.acquire()
            group.create_task(one(channel, _METHODS[number % len(_METHODS)], mutator.make()))
    return Fuzzed(dict(statuses), bad, longest)


async def send(url: str, messages: Sequence[bytes]) -> list[str]:
    """The statuses that requests get, one after the other."""
    async with aio_channel(url) as channel:
        return [await _send(channel, _METHODS[0], message) for message in messages]


async def _send(channel: grpc.aio.Channel, method: str, message: bytes) -> str:
    path = f"/world2vlm.v1.StudentService/{method}"
    any_channel: Any = channel
    try:
        if method == "ReasonStream":
            async for _ in any_channel.unary_stream(path)(message, timeout=_HANGS_S):
                pass
        else:
            data = _several(message) if method == "ReasonMany" else message
            await any_channel.unary_unary(path)(data, timeout=_HANGS_S)
    except grpc.RpcError as error:
        call: Any = error
        return str(call.code().name)
    return "OK"


def _several(message: bytes) -> bytes:
    """A request with the question of another one up to three times, by its length; what is none stays as it is."""
    try:
        request = student_pb2.ReasonRequest.FromString(message)
    except DecodeError:
        return message
    asked = student_pb2.AskedQuestion()
    match request.WhichOneof("question"):
        case "task":
            asked.task.CopyFrom(request.task)
        case "text":
            asked.text = request.text
    questions = [asked] * (len(message) % 4)
    many = student_pb2.ReasonManyRequest(
        images=request.images, questions=questions, max_new_tokens=request.max_new_tokens
    )
    return many.SerializeToString()
