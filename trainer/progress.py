"""Progress of a training: its running means, a bar, and `rounds/<id>/progress.json` for anyone to watch."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from trainer.pieces import Piece
from world2vlm.store import Store
from world2vlm.telemetry import Advance, progress

Progress = Callable[[int, int, dict[str, float]], None]
"""Told (step, steps, figures) after each step of a training."""

_SECONDS_BETWEEN_WRITES = 1.0


def running_means(means: Mapping[str, float], figures: Mapping[str, float], memory: float) -> dict[str, float]:
    """Exponential means after one more step; a figure that is new begins with its value, one that is gone stays.

    Args:
        means: those before.
        figures: the step's.
        memory: what the past counts, 0 to 1.
    """
    return {**means, **{name: memory * means.get(name, new) + (1 - memory) * new for name, new in figures.items()}}


class ProgressFile:
    """Writes how far a piece of work is, at most once a second."""

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
        self._store.write_json(f"rounds/{self._piece.round_id}/progress.json", payload)


@contextmanager
def advancing(description: str) -> Iterator[Progress]:
    """Show the progress of a training, whose first step says how many there are."""
    with ExitStack() as shown:
        advance: Advance | None = None
        before = 0

        def on_progress(step: int, steps: int, _figures: dict[str, float]) -> None:
            nonlocal advance, before
            advance = advance or shown.enter_context(progress(description, steps))
            advance(step - before)
            before = step

        yield on_progress
