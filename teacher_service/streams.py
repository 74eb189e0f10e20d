"""Bounded concurrency: trajectories made on a few threads, each once, and streamed to whoever asked for them."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from teacher_service import metrics
from teacher_service.batches import Order, Waiting, made
from teacher_service.cache import FrameCache
from teacher_service.jobs import Job, Plan, Step
from world2vlm.errors import GateRejectedError, OverloadedError, World2VLMError

_log = logging.getLogger(__name__)
# What callers are told to wait at least and at most where the queue is full.
_LEAST_RETRY_S, _MOST_RETRY_S = 0.1, 30.0
# How much the newest trajectory counts in the mean of how long one takes.
_NEWEST = 0.2


class Streams:
    """Makes trajectories for an event loop.

    A trajectory is made to its end by one thread, as long as anybody waits for it, however slowly they read; the number
    of open streams is bounded. What several ask for at the same time is made once, and what was made before and lies in
    the cache is not made at all. Of what waits for a world, trajectories of one photo are made at once where it can.

    Args:
        max_workers: trajectories made at the same time, not counting those of worlds with lanes of their own.
        max_queue: open streams beyond that.
        cache: what was made before; None = nothing is kept.
    """

    def __init__(self, max_workers: int, max_queue: int, cache: FrameCache | None = None) -> None:
        self._limit = max_workers + max_queue
        self._max_workers = max_workers
        self._cache = cache
        self._open = 0
        self._lock = threading.Lock()
        self._mean_s = 0.0
        self._jobs: dict[str, Job] = {}
        self._waiting = Waiting()
        self._lanes = {"": ThreadPoolExecutor(max_workers, thread_name_prefix="imagine")}
        # Reads requests and the cache; what is quick must not wait for what is slow.
        self._planners = ThreadPoolExecutor(max_workers, thread_name_prefix="plan")
        metrics.watch(lambda: self._open, lambda: self.waiting)

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._open

    @property
    def waiting(self) -> int:
        """How many trajectories wait for a thread."""
        return sum(not job.started for job in list(self._jobs.values()))

    def check_room(self) -> None:
        """Do nothing while another stream may be opened.

        Raises:
            OverloadedError: too many are open; says when there may be room again.
        """
        if self._open >= self._limit:
            wait = min(max(self._mean_s / self._max_workers, _LEAST_RETRY_S), _MOST_RETRY_S)
            raise OverloadedError(f"{self._open} streams are open, which is the limit; try again later", wait)

    async def run(self, plan: Callable[[], Plan]) -> AsyncGenerator[bytes | Step, None]:
        """Yield the items of a trajectory as they are made, and the steps on the way to them.

        A stream that nobody reads any more leaves its trajectory; one that all have left is stopped.

        Args:
            plan: says what to make; called in a thread.

        Raises:
            OverloadedError: too many streams are open.
            World2VLMError: what `plan` or the making raises.
        """
        self.check_room()
        self._open += 1
        try:
            loop = asyncio.get_running_loop()
            planned = await loop.run_in_executor(self._planners, plan)
            found = None
            if planned.key not in self._jobs and self._cache is not None:
                found = await loop.run_in_executor(self._planners, self._cache.get, planned.key)
            if found is not None:
                metrics.CACHE.labels("hit").inc()
                for item in found:
                    yield item
                return
            with self._joined(planned) as (job, changed):
                seen = steps = 0
                while not (job.ended and seen == job.made):
                    await changed.wait()
                    changed.clear()
                    while steps < len(job.steps):
                        yield job.steps[steps]
                        steps += 1
                    while seen < job.made:
                        yield job.item(seen)
                        seen += 1
                if job.error is not None:
                    raise job.error
        finally:
            self._open -= 1

    @contextmanager
    def _joined(self, plan: Plan) -> Iterator[tuple[Job, asyncio.Event]]:
        """The job that makes a plan's items, which this may be the first to ask for, and when it has something new."""
        changed, loop = asyncio.Event(), asyncio.get_running_loop()
        # Something may be there already.
        changed.set()

        def tell() -> None:
            # A loop that is closed has no readers.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        with self._lock:
            job = self._jobs.get(plan.key)
            metrics.CACHE.labels("miss" if job is None else "shared").inc()
            is_new = job is None
            job = job or self._jobs.setdefault(plan.key, Job())
            job.join(tell)
        try:
            if is_new:
                order = Order(plan, job)
                self._waiting.put(order)
                self._lane(plan).submit(self._work, order)
            yield job, changed
        finally:
            if job.leave(tell) and job.made < plan.count:
                # Whoever asks for the same from now on must not get what is being stopped, or was.
                self._forget(plan.key, job)

    def _forget(self, key: str, job: Job) -> None:
        with self._lock:
            if self._jobs.get(key) is job:
                del self._jobs[key]

    def _lane(self, plan: Plan) -> ThreadPoolExecutor:
        if not plan.lanes:
            return self._lanes[""]
        if plan.world not in self._lanes:
            self._lanes[plan.world] = ThreadPoolExecutor(plan.lanes, thread_name_prefix=f"imagine-{plan.world}")
        return self._lanes[plan.world]

    def _work(self, order: Order) -> None:
        """Make what is next in its lane's thread, and what is made with it."""
        batch, started = self._waiting.take(order), time.perf_counter()
        for each in batch:
            each.job.started = True
        missing = [each for each in batch if not self._is_copied(each)]
        if missing:
            metrics.BATCH.labels(order.plan.world).observe(len(missing))
        for each, error in made(missing):
            each.job.end(error)
            try:
                self._note(each.plan, each.job, (time.perf_counter() - started) / len(missing))
            except Exception:
                # The others of the batch still wait.
                _log.exception("a trajectory could not be kept")
            # Until it is kept, others find the job.
            self._forget(each.plan.key, each.job)

    def _is_copied(self, order: Order) -> bool:
        """Take the items from the cache, where another made them while this waited; whether that is all there is."""
        plan, job, error = order.plan, order.job, None
        try:
            found = self._cache.get(plan.key) if self._cache is not None else None
            if found is None:
                return False
            for item in found:
                job.add(item)
        except Exception as raised:
            error = raised
        job.end(error)
        self._forget(plan.key, job)
        return True

    def _note(self, plan: Plan, job: Job, seconds: float) -> None:
        """Count what came of a trajectory, and keep one that is whole."""
        match job.error:
            case None if job.made == plan.count:
                outcome = "made"
                self._mean_s = seconds if not self._mean_s else (1 - _NEWEST) * self._mean_s + _NEWEST * seconds
                metrics.FRAME_SECONDS.labels(plan.world).observe(seconds / plan.count)
                if self._cache is not None:
                    self._cache.put(plan.key, job.items())
            case None:
                outcome = "cancelled"
            case GateRejectedError() as rejection:
                outcome = rejection.code
                metrics.REJECTED.labels(plan.world, rejection.gate).inc()
            case error:
                outcome = error.code if isinstance(error, World2VLMError) else World2VLMError.code
        metrics.TRAJECTORIES.labels(plan.world, outcome).inc()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop what is being made at its next step, and the threads."""
        for job in list(self._jobs.values()):
            job.cancel()
        for pool in (self._planners, *self._lanes.values()):
            pool.shutdown(cancel_futures=True)
