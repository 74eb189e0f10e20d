"""Progress of a long step, for anyone to watch: `rounds/<id>/progress.json`, rewritten at most once a second."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from trainer.pieces import Piece
from world2vlm.errors import NotFoundError
from world2vlm.store import Store

Progress = Callable[[int, int, dict[str, float]], None]
"""Told (step, steps, figures) after each step of a training."""

_SECONDS_BETWEEN_WRITES = 1.0


class ProgressFile:
    """Writes how far a piece of work is."""

    def __init__(self, store: Store, piece: Piece) -> None:
        self._store = store
        self._piece = piece
        self._written = -math.inf

    def __call__(self, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
        """Note that `done` of `total` units are done; most calls write nothing, the last one always does."""
        now = time.monotonic()
        if done < total and now - self._written < _SECONDS_BETWEEN_WRITES:
            return
        self._written = now
        payload = {
            "step": self._piece.step,
            "done": done,
            "total": total,
            "figures": {name: value for name, value in (figures or {}).items() if math.isfinite(value)},
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._store.write_json(_path(self._piece.round_id), payload)


def read_progress(store: Store, round_id: str) -> dict[str, Any] | None:
    """What was written last: `step`, `done`, `total`, `figures`, `at`; None before any."""
    try:
        payload: dict[str, Any] = store.read_json(_path(round_id))
    except NotFoundError:
        return None
    return payload


def _path(round_id: str) -> str:
    return f"rounds/{round_id}/progress.json"
