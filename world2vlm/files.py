"""Local files, written whole or not at all, and digests."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from world2vlm.errors import InvalidInputError


def temporary_name() -> str:
    """A fresh name that begins with a dot: whatever has one is unfinished and is never read."""
    return f".{uuid.uuid4().hex}"


@contextmanager
def atomic_writer(path: Path, publish: Callable[[Path, Path], None] = os.replace) -> Iterator[BinaryIO]:
    """Open a file for writing that appears at `path` when it is whole, and never on an error.

    Args:
        path: the target; its folder is made where it is missing.
        publish: how it appears: `os.replace` takes the place of an older file, `os.link` fails where there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name())
    try:
        with temporary.open("wb") as writer:
            yield writer
            writer.flush()
            os.fsync(writer.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a local file whole, replacing an older one; its folder is made where it is missing."""
    with atomic_writer(path) as writer:
        writer.write(data)


def sha256_file(path: Path) -> str:
    """The sha256 of a local file, in hex."""
    with path.open("rb") as reader:
        return hashlib.file_digest(reader, "sha256").hexdigest()


def canonical_json(payload: Any) -> str:
    """One line of JSON that is the same for equal payloads: what digests are taken over.

    Raises:
        InvalidInputError: the payload is not JSON (NaN and infinities are not).
    """
    try:
        return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"not JSON: {error}") from error
