"""What the models have done, as Triton's statistics extension reports it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from tritonclient.grpc import service_pb2

from student_service.batching import Outcome

# A service that swaps for months must not remember every version it ever had.
_MOST_REMEMBERED = 16

Duration: TypeAlias = service_pb2.StatisticDuration


@dataclass
class Record:
    """One request: the version that answers it, and in the end what came of it; neither where it got not so far."""

    version: int | None = None
    outcome: Outcome | None = None


@dataclass
class _Sums:
    """What one version of a model did: requests, nanoseconds."""

    last_ms: int = 0
    succeeded: int = 0
    success_ns: int = 0
    failed: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0

    def add(self, outcome: Outcome | None, took_ns: int) -> None:
        self.last_ms = time.time_ns() // 1_000_000
        if outcome is None:
            self.failed += 1
            self.fail_ns += took_ns
            return
        queue_ns, infer_ns = round(1e6 * outcome.queue_ms), round(1e6 * outcome.generate_ms)
        self.succeeded += 1
        self.success_ns += took_ns
        self.queue_ns += queue_ns
        self.infer_ns += infer_ns
        # What is left is what came before the queue: reading the tensors and decoding the images.
        self.input_ns += max(0, took_ns - queue_ns - infer_ns)


@dataclass
class Statistics:
    """Counts and durations by model and version, since the service began. It belongs to one event loop."""

    _sums: dict[tuple[str, int], _Sums] = field(default_factory=dict)

    @contextmanager
    def recording(self, model: str) -> Iterator[Record]:
        """Count one request when the block ends, if the record has a version by then."""
        record, started = Record(), time.perf_counter_ns()
        try:
            yield record
        finally:
            if record.version is not None:
                self._of(model, record.version).add(record.outcome, time.perf_counter_ns() - started)

    def report(self, models: Iterable[str], version: int | None, serving: int) -> service_pb2.ModelStatisticsResponse:
        """The statistics of some models.

        Args:
            models: their names.
            version: the one to report; None = all that answered, and the one that serves.
            serving: the version that serves.
        """
        response = service_pb2.ModelStatisticsResponse()
        for model in models:
            known = {number for name, number in self._sums if name == model} | {serving}
            for number in sorted(known if version is None else {version}):
                response.model_stats.append(_message(model, number, self._sums.get((model, number), _Sums())))
        return response

    def knows(self, model: str, version: int) -> bool:
        """Whether that version answered anything."""
        return (model, version) in self._sums

    def _of(self, model: str, version: int) -> _Sums:
        if (model, version) not in self._sums and len(self._sums) >= _MOST_REMEMBERED:
            del self._sums[next(iter(self._sums))]
        return self._sums.setdefault((model, version), _Sums())


def _message(model: str, version: int, sums: _Sums) -> service_pb2.ModelStatistics:
    count = sums.succeeded
    return service_pb2.ModelStatistics(
        name=model,
        version=str(version),
        last_inference=sums.last_ms,
        inference_count=count,
        # Requests join and leave what is under way one by one: each is an execution of its own.
        execution_count=count,
        inference_stats=service_pb2.InferStatistics(
            success=Duration(count=count, ns=sums.success_ns),
            fail=Duration(count=sums.failed, ns=sums.fail_ns),
            queue=Duration(count=count, ns=sums.queue_ns),
            compute_input=Duration(count=count, ns=sums.input_ns),
            compute_infer=Duration(count=count, ns=sums.infer_ns),
            compute_output=Duration(count=count),
        ),
    )
