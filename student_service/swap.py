"""The swap: a new checkpoint takes over while questions keep coming, or the old one stays.

Verify the files, load beside the old, warm up, ask the canary, write down what serves, flip one reference, drain the
old, give its memory back. A request ends on the weights it began with. Warming up and the canary go through the queue
of everybody's questions, when nobody waits; loading stands still while an answer is computed.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from student_service import canary, memory
from student_service.batching import Batcher, Outcome
from student_service.engines.base import Loader, Query, Reply
from student_service.phases import Phases
from student_service.slots import Serving, Slot
from world2vlm.adapters import merged
from world2vlm.base_student import publish_base
from world2vlm.checkpoints import Registry
from world2vlm.errors import GateRejectedError, PreconditionError, World2VLMError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwapReport:
    """What a swap did: the version before (None at the first start), the one after, and milliseconds by phase."""

    from_version: int | None
    to_version: int
    phases_ms: dict[str, float]


@dataclass(frozen=True)
class _Change:
    """What is asked for.

    Attributes:
        version: what shall serve.
        reason: why; goes into the history.
        rejected: the version that it takes over from because that one failed.
        goes_back: to a version that has served: it is measured by nobody's canary, and not watched.
    """

    version: int
    reason: str
    rejected: int | None = None
    goes_back: bool = False


class Swapper:
    """Changes which checkpoint serves, one change at a time. Its methods block: call them in a thread.

    Args:
        registry: where checkpoints are, and where it is written down which one serves.
        serving: the reference to flip.
        batcher: answers everybody's questions, and the candidate's.
        load: makes an engine of a folder.
        drain_timeout_s: how long a swap waits for requests that the old version still answers.
        on_flip: called right after a flip with the version, and with the seconds since it was promoted, None where it
            needs no watching.
        on_swap: called after a whole swap.
    """

    def __init__(
        self,
        registry: Registry,
        serving: Serving,
        batcher: Batcher,
        load: Loader,
        *,
        drain_timeout_s: float = 60.0,
        on_flip: Callable[[int, float | None], None] = lambda version, served_s: None,
        on_swap: Callable[[SwapReport], None] = lambda report: None,
    ) -> None:
        self._registry = registry
        self._serving = serving
        self._batcher = batcher
        self._load = load
        self._drain_timeout_s = drain_timeout_s
        self._on_flip = on_flip
        self._on_swap = on_swap
        self._one_at_a_time = threading.Lock()
        self._parsed = 0  # of the canary's questions, by the checkpoint that serves

    def start(self, base: Path) -> SwapReport:
        """Serve what was promoted last; where nothing ever was, publish the student in `base` and serve that.

        A promoted version that turns out corrupted or unfit is passed over for the one that served before it. One that
        was taken off because it failed is not tried.

        Raises:
            PreconditionError: no version can serve.
        """
        with self._exclusively():
            versions = self._promoted() or [publish_base(self._registry, base).version]
            report = self._first_of(_Change(version, "start") for version in versions)
        if report is None:
            raise PreconditionError("no checkpoint can serve: each version that ever did is corrupted or unfit")
        memory.settle()
        return report

    def swap(self, version: int, reason: str = "swap") -> SwapReport:
        """Let `version` serve. Nothing happens where it does already.

        Raises:
            NotFoundError: no such version.
            DataCorruptedError: a file differs from its manifest.
            GateRejectedError: the canary rejects it.
            PreconditionError: it is unfit, or another swap is under way.
        """
        with self._exclusively():
            return self._swap(_Change(version, reason))

    def roll_back(self) -> SwapReport:
        """Let the version serve that served before.

        Raises:
            PreconditionError: there is none; or as `swap`.
        """
        with self._exclusively():
            version = self._registry.previous()
            if version is None:
                raise PreconditionError("no version served before this one")
            return self._swap(_Change(version, "roll back", goes_back=True))

    def reject(self, version: int, reason: str) -> SwapReport | None:
        """Take off a version that fails while it serves: the latest one before it that can takes over.

        Waits while another swap is under way, since nobody is there to try again. The reason is kept in the history.

        Returns:
            What was done; None where the version does not serve any more.

        Raises:
            PreconditionError: no other version can serve.
        """
        with self._one_at_a_time:
            if self._serving.version != version:
                return None
            text = f"version {version} rolled back: {reason}"
            others = [other for other in self._promoted() if other != version]
            report = self._first_of(_Change(other, text, version, goes_back=True) for other in others)
        if report is None:
            raise PreconditionError(f"no other version can take over from version {version}")
        return report

    def ask_canary(self, version: int) -> None:
        """Ask the canary again of the version that serves; nothing happens where `version` does not.

        Raises:
            GateRejectedError: the canary rejects it.
            Exception: what the engine raised.
        """
        with self._serving.lease() as slot:
            if slot.version == version:
                parsed = self._parsed
                canary.judge([self._ask(slot, query) for query in canary.canary_queries()], parsed)

    def prepare(self, version: int) -> Slot:
        """A slot with a verified, loaded, warm version that passed the canary; the caller retires it.

        Raises:
            World2VLMError: as `swap`.
        """
        return self._prepare(version, self._parsed, Phases(version))[0]

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if not self._one_at_a_time.acquire(blocking=False):
            raise PreconditionError("another swap is under way")
        try:
            yield
        finally:
            self._one_at_a_time.release()

    def _promoted(self) -> list[int]:
        """What served, the latest first, without what failed then."""
        rejected = self._registry.rejected()
        served = dict.fromkeys(promotion.version for promotion in reversed(self._registry.history()))
        return [version for version in served if version not in rejected]

    def _first_of(self, changes: Iterable[_Change]) -> SwapReport | None:
        for change in changes:
            try:
                return self._swap(change)
            except World2VLMError as error:
                _log.error("version %d cannot serve: %s", change.version, error)
        return None

    def _swap(self, change: _Change) -> SwapReport:
        version, before = change.version, self._serving.version
        if version == before:
            return SwapReport(before, version, {})
        phases = Phases(version)
        candidate, parsed = self._prepare(version, 0 if change.goes_back else self._parsed, phases)
        try:
            # Durable first: a service that dies after this line comes back with the version that it meant to serve.
            self._registry.set_serving(version, change.reason, change.rejected)
        except BaseException:
            candidate.retire()
            raise
        old = self._serving.flip(candidate)
        self._parsed = parsed
        self._on_flip(version, None if change.goes_back else self._served_s())
        self._release(old, phases)
        report = SwapReport(before, version, phases.milliseconds)
        _log.info("version %d serves (%s), before it %s", version, change.reason, before)
        self._on_swap(report)
        return report

    def _served_s(self) -> float:
        """Seconds since what serves was promoted: more than none where the service was started anew meanwhile."""
        since = datetime.fromisoformat(self._registry.history()[-1].at)
        return max(0.0, (datetime.now(UTC) - since).total_seconds())

    def _prepare(self, version: int, parsed_before: int, phases: Phases) -> tuple[Slot, int]:
        with phases.time("verify"):
            folder, base = self._registry.fetch(version), self._registry.fetch_base(version)
        with phases.time("load"), ExitStack() as loading:
            # An engine may load again where a process of its own dies: what it loads from stays as long as the slot.
            loadable = loading.enter_context(merged(folder, base))
            candidate = Slot(version, self._load(loadable), loading.pop_all().close)
        try:
            return candidate, self._try_out(candidate, parsed_before, phases)
        except BaseException:
            candidate.retire()
            raise

    def _try_out(self, candidate: Slot, parsed_before: int, phases: Phases) -> int:
        try:
            with phases.time("warm"):
                self._warm(candidate)
            with phases.time("canary"):
                replies = [self._ask(candidate, query) for query in canary.canary_queries()]
        except GateRejectedError:
            raise
        except Exception as error:
            _log.exception("version %d fails on the canary's questions", candidate.version)
            raise PreconditionError(
                f"version {candidate.version} is unfit: the canary's questions make it fail"
            ) from error
        return canary.judge(replies, parsed_before)

    def _warm(self, candidate: Slot) -> None:
        for batch in canary.warm_batches(candidate.engine.capacity):
            futures = [self._submit(candidate, query, canary.WARM_NEW_TOKENS) for query in batch]
            for query, future in zip(batch, futures, strict=True):
                canary.check_probability(query.task, future.result().reply)

    def _ask(self, slot: Slot, query: Query) -> Reply:
        return self._submit(slot, query, canary.MAX_NEW_TOKENS).result().reply

    def _submit(self, slot: Slot, query: Query, max_new_tokens: int) -> Future[Outcome]:
        """Ask as the service asks every question, but after everybody else."""
        return self._batcher.submit(slot, query, max_new_tokens, background=True)

    def _release(self, old: Slot | None, phases: Phases) -> None:
        with phases.time("drain"):
            is_drained = old is None or old.wait_drained(self._drain_timeout_s)
        if old is not None and not is_drained:
            _log.warning("version %s still answers %d requests; it goes when they end", old.version, old.holders)
            threading.Thread(target=_give_back_later, args=(old,), name="release", daemon=True).start()
            return
        with phases.time("release"):
            memory.give_back()


def _give_back_later(old: Slot) -> None:
    if old.wait_drained(threading.TIMEOUT_MAX):
        memory.give_back()
