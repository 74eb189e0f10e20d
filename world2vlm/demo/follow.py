"""Follow a round's files."""

import time
from collections.abc import Iterator

from world2vlm.errors import NotFoundError, UnavailableError
from world2vlm.rounds import RoundState
from world2vlm.steps_shown import Where
from world2vlm.store import Store

_POLL_SECONDS = 0.3
_STALL_SECONDS = 600.0


def look(store: Store, state: RoundState) -> Where:
    """Read where a round is."""
    step = state.status()
    if step == "imagine":
        total = len(state.shards())
        return Where(step, total - len(state.missing_shards()), total)
    try:
        written = store.read_json(f"rounds/{state.plan().id}/progress.json")
    except NotFoundError:
        return Where(step)
    return Where(step, written["done"], written["total"]) if written["step"] == step else Where(step)


def follow(store: Store, state: RoundState) -> Iterator[Where]:
    """Yield where a round is, a few times a second, until it is over.

    Raises:
        UnavailableError: nothing has moved for minutes.
    """
    last, since = None, time.monotonic()
    while True:
        where = look(store, state)
        yield where
        if where.is_over:
            return
        if where != last:
            last, since = where, time.monotonic()
        elif time.monotonic() - since > _STALL_SECONDS:
            raise UnavailableError(
                f"the step {where.step} has not moved for {_STALL_SECONDS:.0f} s; see the worker's log"
            )
        time.sleep(_POLL_SECONDS)
