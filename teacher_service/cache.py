"""Trajectories on disk, by the digest of all that they are a function of, so that none is made twice.

An entry is one file, `<key[:2]>/<key>`: a line of JSON with the items' lengths and the sha256 of these and the items,
then the items. Entries appear whole, and are verified when they are read: a broken one counts as none. Several
processes may share a folder. Where it grows over its bound, the entries that were used longest ago go.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from teacher_service import metrics
from world2vlm.files import atomic_writer

_log = logging.getLogger(__name__)
# What a killed writer left is older than any that still writes.
_STALE_S = 3600.0
# Room is made for more than the entry that needs it, so that not every entry has to look through the folder.
_KEEP_SHARE = 0.9


class FrameCache:
    """Sequences of bytes by key.

    Args:
        folder: made with the first entry.
        max_bytes: of all entries together; a longer trajectory is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes = sum(size for _, size, _ in self._entries())
        metrics.CACHE_BYTES.set(self._bytes)

    def get(self, key: str) -> list[bytes] | None:
        """The items of an entry, which counts as used now; None where there is none, or a broken one."""
        path = self._path(key)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        items = _split(head, body)
        if items is None:
            _log.warning("cache: %s is corrupt and will be made again", path.name)
            metrics.CACHE.labels("corrupt").inc()
            with suppress(OSError):
                path.unlink()
            return None
        # Another process may have made room meanwhile.
        with suppress(OSError):
            os.utime(path)
        return items

    def put(self, key: str, items: Sequence[bytes]) -> None:
        """Keep an entry, and make room for it. A disk that can't is a line in the log, and nothing is lost but time."""
        body, lengths = b"".join(items), list(map(len, items))
        head = json.dumps({"sha256": _digest(lengths, body), "lengths": lengths}).encode() + b"\n"
        size = len(head) + len(body)
        if size > self._max_bytes:
            return
        try:
            if self._bytes + size > self._max_bytes:
                self._make_room(size)
            with atomic_writer(self._path(key)) as writer:
                writer.write(head)
                writer.write(body)
        except OSError as error:
            _log.warning("cache: cannot keep a trajectory in %s: %s", self._folder, error)
            return
        self._bytes += size
        metrics.CACHE_BYTES.set(self._bytes)

    def _make_room(self, size: int) -> None:
        """Remove the entries that were used longest ago, and unfinished ones that nobody will finish."""
        entries = sorted(self._entries())
        left = sum(held for _, held, _ in entries)
        goal = min(_KEEP_SHARE * self._max_bytes, self._max_bytes - size)
        stale = time.time() - _STALE_S
        for used, held, path in entries:
            is_unfinished = path.name.startswith(".")
            if (left > goal and not is_unfinished) or (is_unfinished and used < stale):
                path.unlink(missing_ok=True)
                left -= held
        self._bytes = left

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """When each file was used last, its size, and itself."""
        for path in self._folder.glob("*/*"):
            try:
                found = path.stat()
            except OSError:
                continue
            yield found.st_mtime, found.st_size, path

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _split(head: bytes, body: bytes) -> list[bytes] | None:
    """The items of an entry; None where it is not what its head says."""
    try:
        said = json.loads(head)
        lengths = [int(length) for length in said["lengths"]]
        whole = said["sha256"] == _digest(lengths, body)
    except (ValueError, KeyError, TypeError):
        return None
    if not whole:
        return None
    items, start = [], 0
    for length in lengths:
        items.append(body[start : start + length])
        start += length
    return items


def _digest(lengths: Sequence[int], body: bytes) -> str:
    digest = hashlib.sha256(json.dumps(lengths).encode())
    digest.update(body)
    return digest.hexdigest()
