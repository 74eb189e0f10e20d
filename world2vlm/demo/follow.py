"""Follow a round's files."""

import time
from collections.abc import Iterator

from world2vlm.errors import UnavailableError
from world2vlm.rounds import RoundState
from world2vlm.steps_shown import Where, look
from world2vlm.store import Store

_POLL_SECONDS = 0.3
_STALL_SECONDS = 600.0


def follow(store: Store, state: RoundState) -> Iterator[Where]:
    """Yield where a round is, a few times a second, until it is over.

    Raises:
        UnavailableError: nothing has moved for minutes.
    """
    last, since = None, time.monotonic()
    while True:
        where = look(store, state, state.status())
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
