"""Runs rounds: what is missing is enqueued, what is delivered is done once, what is done leads to the next step.

The store alone says how far a round is. Queue, locks and leases only keep workers out of each other's way: without
them work is done twice at worst, and the first result stands.
"""

import logging
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from trainer.attempts import MAX_ATTEMPTS, Attempts
from trainer.pieces import Piece, missing_pieces
from world2vlm.errors import NotFoundError, OverloadedError, UnavailableError, World2VLMError
from world2vlm.rounds import RoundState, list_rounds
from world2vlm.store import Store

_log = logging.getLogger(__name__)


class Coordinator(Protocol):
    """What workers share while they run (`trainer.coordination`)."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Wait for a short lock and hold it.

        Raises:
            OverloadedError: it was not to be had in time.
        """
        ...

    def lease(self, key: str, delivery: str) -> AbstractContextManager[bool]:
        """Claim a piece while working on it; False where another delivery holds it.

        The same delivery gets it again: it was redelivered because its worker died.
        """
        ...

    def busy(self) -> Collection[str]:
        """Keys of the pieces that wait in a queue or are being worked on."""
        ...

    def enqueue(self, pieces: Iterable[Piece]) -> None:
        """Send pieces to their queues."""
        ...


class Steps(Protocol):
    """The work itself."""

    def do(self, piece: Piece) -> None:
        """Do a piece and write its result; doing it again changes nothing.

        Raises:
            UnavailableError, OverloadedError: a service stayed away; try again later.
            World2VLMError: it can't be done, now or later.
        """
        ...


class RoundRunner:
    """Moves rounds forward.

    Args:
        store: the truth.
        steps: the work.
        coordinator: queue, locks and leases.
        node: this worker's name.
    """

    def __init__(self, store: Store, steps: Steps, coordinator: Coordinator, node: str) -> None:
        self._store = store
        self._steps = steps
        self._coordinator = coordinator
        self._node = node

    def advance(self, round_id: str) -> None:
        """Enqueue exactly what the round's next step lacks and nobody has in hand. Safe to call at any time.

        Raises:
            NotFoundError: no such round.
        """
        state = RoundState(self._store, round_id)
        plan = state.plan()
        with self._coordinator.exclusive(f"advance/{round_id}"):
            missing = missing_pieces(plan, state)
            busy = self._coordinator.busy() if missing else ()
            self._coordinator.enqueue(piece for piece in missing if piece.key not in busy)

    def reconcile(self) -> None:
        """Advance every unfinished round: whatever a dead worker or a lost broker dropped is picked up here."""
        for round_id in list_rounds(self._store):
            self.advance(round_id)

    def run(self, piece: Piece, delivery: str) -> None:
        """Do a piece, unless it is done or in other hands, and advance its round.

        Args:
            piece: what to do.
            delivery: the message's id; a redelivered message has the same.

        Raises:
            UnavailableError, OverloadedError: a service stayed away; `reconcile` will bring the piece back.
        """
        with self._coordinator.lease(piece.key, delivery) as mine:
            if not mine:
                _log.info("%s: another delivery is at work on it", piece.key)
                return
            if self._is_missing(piece):
                self._attempt(piece)
        self.advance(piece.round_id)

    def _is_missing(self, piece: Piece) -> bool:
        state = RoundState(self._store, piece.round_id)
        try:
            return piece in missing_pieces(state.plan(), state)
        except NotFoundError:
            return False

    def _attempt(self, piece: Piece) -> None:
        state = RoundState(self._store, piece.round_id)
        attempts = Attempts(self._store, piece)
        if attempts.count() >= MAX_ATTEMPTS:
            state.stop(f"{piece.key} was tried {MAX_ATTEMPTS} times and killed its worker or failed each time")
            return
        attempt = attempts.begin(self._node)
        try:
            self._steps.do(piece)
        except (UnavailableError, OverloadedError) as error:
            attempts.end(attempt)
            state.log_event(f"{piece.key} waits: {error}")
            raise
        except World2VLMError as error:
            attempts.end(attempt)
            _log.warning("%s: stopped: %s", piece.key, error)
            state.stop(f"{piece.key}: {error}", code=error.code)
        except Exception as error:
            # A fault of ours, or of the machine: the attempt stays counted, and `advance` sends the piece again.
            _log.exception("%s failed", piece.key)
            state.log_event(f"{piece.key} failed", error=type(error).__name__)
        else:
            attempts.end(attempt)
