"""Counting attempts in the store: a piece of work that always kills its worker must not be tried for ever."""

import uuid
from datetime import UTC, datetime

from trainer.pieces import Piece
from world2vlm.store import Store

MAX_ATTEMPTS = 3


class Attempts:
    """The attempts at one piece that began and never ended in order: killed, or failed for no known reason."""

    def __init__(self, store: Store, piece: Piece) -> None:
        self._store = store
        self._root = f"rounds/{piece.round_id}/attempts/{piece.step}-{piece.index:03d}"

    def count(self) -> int:
        """How many attempts began and never ended."""
        return len(self._store.children(self._root))

    def begin(self, node: str) -> str:
        """Note that an attempt begins on a worker; return its path for `end`."""
        path = f"{self._root}/{uuid.uuid4().hex}.json"
        self._store.write_json(path, {"node": node, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        return path

    def end(self, attempt: str) -> None:
        """Note that the attempt ended in order."""
        self._store.delete(attempt)


def forgive(store: Store, round_id: str, node: str) -> None:
    """Forget a round's open attempts on a worker that was told to stop: that was not the work's fault."""
    for path in store.list(f"rounds/{round_id}/attempts"):
        if store.read_json(path)["node"] == node:
            store.delete(path)
