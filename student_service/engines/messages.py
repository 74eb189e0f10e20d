"""What a pool and its worker processes tell each other: a JSON object, and bytes behind it that JSON can't hold."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from student_service.engines.base import Query, Reply, Update
from world2vlm import errors
from world2vlm.errors import InvalidInputError, PreconditionError, UnavailableError, World2VLMError

_LENGTH = struct.Struct("<I")
_KNOWN = {kind.code: kind for kind in (InvalidInputError, PreconditionError, UnavailableError, errors.NotFoundError)}


class EngineFailedError(RuntimeError):
    """The engine in the worker failed in a way that nobody foresaw; the worker's log has it."""


def pack(head: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One message."""
    text = json.dumps({**head, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join((_LENGTH.pack(len(text)), text, *blobs))


def unpack(message: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """A message's object and its blobs."""
    (length,) = _LENGTH.unpack_from(message)
    start = _LENGTH.size + length
    head = json.loads(message[_LENGTH.size : start])
    blobs = []
    for size in head["sizes"]:
        blobs.append(message[start : start + size])
        start += size
    return head, blobs


@dataclass(frozen=True)
class Ask:
    """A query as it is sent; its updates come back with `number`."""

    number: int
    query: Query
    max_new_tokens: int
    streams: bool


def write_asks(asks: Sequence[Ask]) -> bytes:
    """Queries in one message; pictures that several of them are about are in it once."""
    about = {images: index for index, images in enumerate(dict.fromkeys(ask.query.images for ask in asks))}
    fields = [
        [ask.number, about[ask.query.images], ask.query.text, ask.query.task, ask.max_new_tokens, ask.streams]
        for ask in asks
    ]
    blobs = [image for images in about for image in images]
    return pack({"asks": fields, "pictures": [len(images) for images in about]}, blobs)


def read_asks(head: Mapping[str, Any], blobs: Sequence[bytes]) -> list[Ask]:
    """The queries of a message."""
    rest = iter(blobs)
    about = [tuple(islice(rest, count)) for count in head["pictures"]]
    return [
        Ask(number, Query(about[index], text, task), limit, streams)
        for number, index, text, task, limit, streams in head["asks"]
    ]


def write_update(update: Update) -> list[Any]:
    """An update as JSON holds it."""
    reply = None if update.reply is None else asdict(update.reply)
    return [update.key, update.text, reply, None if update.error is None else write_error(update.error)]


def read_update(fields: Sequence[Any], key: int) -> Update:
    """An update, under its caller's key."""
    _, text, reply, error = fields
    return Update(key, text, None if reply is None else Reply(**reply), None if error is None else read_error(error))


def write_error(error: Exception) -> list[str]:
    """An error's code and text; both empty where its text must not leave the worker."""
    is_known = isinstance(error, World2VLMError) and error.code in _KNOWN
    return [error.code, str(error)] if is_known and isinstance(error, World2VLMError) else ["", ""]


def read_error(fields: Sequence[str]) -> Exception:
    """What a worker's error was."""
    code, text = fields
    return _KNOWN[code](text) if code else EngineFailedError("the engine failed; its process's log says why")
