"""Shadow mode: a candidate answers a share of what is asked, and nobody hears it.

Its answers are compared with the served ones, by task, in the metrics and in the log. A candidate's turn comes after
the served answer and only while no live query waits or is being answered; one that arrives meanwhile stops it.
"""

import logging
import random
import threading
from concurrent.futures import Future
from functools import partial

from prometheus_client import Counter

from student_service.batching import Batcher, CancelledQueryError, Outcome
from student_service.engines.base import Query
from student_service.slots import Slot
from world2vlm.errors import InvalidInputError
from world2vlm.scoring import score

_log = logging.getLogger(__name__)
_LOG_EVERY = 100
FREE_TEXT = "text"

ANSWERS = Counter(
    "world2vlm_student_shadow_answers",
    "Live queries drawn for the shadowed candidate, by task and by what came of it: answered, failed or dropped.",
    ["task", "result"],
)
AGREEMENT = Counter(
    "world2vlm_student_shadow_agreement",
    "Sum of the agreement, 0 to 1, of the candidate's answers with the served ones; divide by those answered.",
    ["task"],
)


def agreement(task: str, served: str, candidate: str) -> float:
    """How far a candidate's answer agrees with the served one, 0 to 1.

    A task's answers are scored by the task's own measure, the served one taken for true: the overlap of boxes, the
    share of motions within tolerance, equality. Free text, and what has not the task's form, agrees where it is equal.
    """
    try:
        return score(task, served, candidate)["overall"] if task else float(served == candidate)
    except InvalidInputError:
        return float(served == candidate)


class Shadow:
    """Asks a candidate what others are asked.

    Args:
        slot: the loaded candidate; the shadow retires it when it is closed.
        share: of the live queries, 0 to 1.
        batcher: answers both.
        seed: of the draw which queries are taken.
    """

    def __init__(self, slot: Slot, share: float, batcher: Batcher, seed: int = 0) -> None:
        self._slot = slot
        self._share = share
        self._batcher = batcher
        self._random = random.Random(seed)
        # Callbacks of futures come in whatever thread ends them, also within a call of `cancel`.
        self._lock = threading.RLock()
        self._live = 0
        self._asked: Future[Outcome] | None = None
        self._closed = False
        self._sums: dict[str, tuple[int, float]] = {}

    def observe(self, slot: Slot, query: Query, max_new_tokens: int, future: Future[Outcome]) -> None:
        """Make way for a live query, and draw whether the candidate gets it, too; an `Observer`."""
        with self._lock:
            self._live += 1
            drawn = self._random.random() < self._share and slot.version != self._slot.version
            asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()
        future.add_done_callback(partial(self._served, query, max_new_tokens, drawn))

    def close(self) -> None:
        """Ask nothing any more, and let the candidate go."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()
        self._slot.retire()

    def _served(self, query: Query, max_new_tokens: int, drawn: bool, future: Future[Outcome]) -> None:
        with self._lock:
            self._live -= 1
            if not drawn or self._closed or future.cancelled() or future.exception() is not None:
                return
            if self._live or self._asked is not None:
                self._count(query.task, "dropped")
                return
            self._asked = asked = self._batcher.submit(self._slot, query, max_new_tokens, background=True)
        asked.add_done_callback(partial(self._answered, query.task, future.result().reply.text))

    def _answered(self, task: str, served: str, future: Future[Outcome]) -> None:
        with self._lock:
            if self._asked is future:
                self._asked = None
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or isinstance(error, CancelledQueryError):
            self._count(task, "dropped")
        elif error is not None:
            self._count(task, "failed")
            _log.warning("shadowed version %d fails on a query of %s: %s", self._slot.version, task or FREE_TEXT, error)
        else:
            self._compare(task, served, future.result().reply.text)

    def _compare(self, task: str, served: str, candidate: str) -> None:
        agreed = agreement(task, served, candidate)
        self._count(task, "answered")
        AGREEMENT.labels(task or FREE_TEXT).inc(agreed)
        with self._lock:
            count, total = self._sums.get(task, (0, 0.0))
            self._sums[task] = count + 1, total + agreed
        _log.debug("shadowed version %d, %s: %r for %r", self._slot.version, task or FREE_TEXT, candidate, served)
        if (count + 1) % _LOG_EVERY == 0:
            _log.info(
                "shadowed version %d agrees by %.3f on %d queries of %s",
                *(self._slot.version, (total + agreed) / (count + 1), count + 1, task or FREE_TEXT),
            )

    def _count(self, task: str, result: str) -> None:
        ANSWERS.labels(task or FREE_TEXT, result).inc()
