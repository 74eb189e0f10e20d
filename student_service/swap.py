"""The swap: a new checkpoint takes over while questions keep coming, or the old one stays.

Verify the files, load beside the old, warm up, ask the canary, write down what serves, flip one reference, drain the
old. A request ends on the weights it began with. Warming up and the canary go through the queue of everybody's
questions, one at a time and when nobody waits; loading stands still while an answer is computed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from student_service import canary
from student_service.batching import Batcher
from student_service.courtesy import giving_way
from student_service.engines.base import Loader, Query, Reply
from student_service.slots import Serving, Slot
from world2vlm.checkpoints import Registry
from world2vlm.errors import PreconditionError, World2VLMError

_log = logging.getLogger(__name__)
_WARM_NEW_TOKENS = 4


@dataclass(frozen=True)
class SwapReport:
    """What a swap did: the version before (None at the first start), the one after, and milliseconds by phase."""

    from_version: int | None
    to_version: int
    phases_ms: dict[str, float]


class Swapper:
    """Changes which checkpoint serves, one change at a time. Its methods block: call them in a thread."""

    def __init__(
        self,
        registry: Registry,
        serving: Serving,
        batcher: Batcher,
        load: Loader,
        *,
        drain_timeout_s: float = 60.0,
        on_swap: Callable[[SwapReport], None] = lambda report: None,
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._batcher = batcher
        self._load = load
        self._drain_timeout_s = drain_timeout_s
        self._on_swap = on_swap
        self._one_at_a_time = threading.Lock()
        self._parsed = 0  # of the canary's questions, by the checkpoint that serves

    def start(self, base: Path) -> SwapReport:
        """Serve what was promoted last; where nothing ever was, publish the student in `base` and serve that.

        A promoted version that turns out corrupted or unfit is passed over for the one that served before it.

        Raises:
            PreconditionError: no version can serve.
        """
        promoted = [promotion.version for promotion in reversed(self._registry.history())]
        for version in dict.fromkeys(promoted or [self._publish_base(base)]):
            try:
                return self.swap(version, reason="start")
            except World2VLMError as error:
                _log.error("version %d cannot serve: %s", version, error)
        raise PreconditionError("no checkpoint can serve: each version that ever did is corrupted or unfit")

    def swap(self, version: int, reason: str = "swap") -> SwapReport:
        """Let `version` serve. Nothing happens where it does already.

        Raises:
            NotFoundError: no such version.
            DataCorruptedError: a file differs from its manifest.
            GateRejectedError: the canary rejects it.
            PreconditionError: it is unfit, or another swap is under way.
        """
        with self._exclusively():
            return self._swap(version, reason)

    def roll_back(self) -> SwapReport:
        """Let the version serve that served before.

        Raises:
            PreconditionError: there is none; or as `swap`.
        """
        with self._exclusively():
            version = self._registry.previous()
            if version is None:
                raise PreconditionError("no version served before this one")
            return self._swap(version, "roll back")

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(blocking=False):
            raise PreconditionError("another swap is under way")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    def _publish_base(self, base: Path) -> int:
        if not base.is_dir():
            raise PreconditionError("nothing was ever promoted, and there is no base student to begin with")
        manifest = self._registry.publish(
            base, parent=None, kind="full", dataset_digest="", recipe="base-student", metrics={}, key="base-student"
        )
        return manifest.version

    def _swap(self, version: int, reason: str) -> SwapReport:
        before = self._serving.version
        if version == before:
            return SwapReport(before, version, {})
        phases = _Phases(version)
        with phases.time("verify"):
            folder = self._registry.fetch(version)
        with phases.time("load"), giving_way(self._batcher.idle):
            candidate = Slot(version, self._load(folder))
        try:
            parsed = self._try_out(candidate, phases)
            # Durable first: a service that dies after this line comes back with the version that it meant to serve.
            self._registry.set_serving(version, reason)
        except BaseException:
            candidate.retire()
            raise
        old = self._serving.flip(candidate)
        self._parsed = parsed
        with phases.time("drain"):
            if old is not None and not old.wait_drained(self._drain_timeout_s):
                _log.warning("version %s still answers %d requests; it goes when they end", before, old.holders)
        report = SwapReport(before, version, phases.milliseconds)
        _log.info("version %d serves (%s), before it %s", version, reason, before)
        self._on_swap(report)
        return report

    def _try_out(self, candidate: Slot, phases: "_Phases") -> int:
        queries = canary.canary_queries()
        try:
            with phases.time("warm"):
                self._ask(candidate, queries[0], _WARM_NEW_TOKENS)
            with phases.time("canary"):
                replies = [self._ask(candidate, query, canary.MAX_NEW_TOKENS) for query in queries]
        except Exception as error:
            _log.exception("version %d fails on the canary's questions", candidate.version)
            raise PreconditionError(
                f"version {candidate.version} is unfit: the canary's questions make it fail"
            ) from error
        return canary.judge(replies, self._parsed)

    def _ask(self, candidate: Slot, query: Query, max_new_tokens: int) -> Reply:
        return self._batcher.submit(candidate, query, max_new_tokens, background=True).result().reply


class _Phases:
    """Times the phases of one swap and says in the log when each begins."""

    def __init__(self, version: int) -> None:
        self._version = version
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        _log.info("version %d: %s", self._version, phase)
        started = time.perf_counter()
        yield
        self.milliseconds[phase] = 1000 * (time.perf_counter() - started)
