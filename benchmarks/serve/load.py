"""Load: closed loops (so many clients, each asks again once answered) and open ones (so many questions a second)."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from benchmarks.serve.asking import OK, Asker, Told

More = Callable[[], bool]


def _no_more() -> bool:
    return False


@dataclass(frozen=True)
class Sample:
    """One question asked.

    Attributes:
        index: which one.
        sent, ended: seconds on this process's clock.
        late_ms: how much later than planned it was sent; 0 in a closed loop.
        told: what came back.
    """

    index: int
    sent: float
    ended: float
    late_ms: float
    told: Told

    @property
    def ms(self) -> float:
        """Milliseconds to the whole answer."""
        return 1000 * (self.ended - self.sent)


@dataclass(frozen=True)
class Asked:
    """All samples of a load, and how long it lasted."""

    samples: Sequence[Sample]
    seconds: float

    def of(self, status: str) -> list[Sample]:
        """The samples that ended with a status."""
        return [sample for sample in self.samples if sample.told.status == status]

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.of(OK)) / self.seconds

    @property
    def tokens(self) -> float:
        """Tokens of an answer on average."""
        return float(np.mean([sample.told.tokens for sample in self.of(OK)] or [0]))


def percentile(samples: Sequence[Sample], percent: float) -> float:
    """Milliseconds that so many percent of the samples' answers take at most; NaN where there are none."""
    return percentile_of([sample.ms for sample in samples], percent)


def percentile_of(values: Sequence[float], percent: float) -> float:
    """What so many percent of the values are at most; NaN where there are none."""
    return float(np.percentile(values, percent)) if values else float("nan")


async def closed(
    asker: Asker,
    questions: int,
    clients: int,
    seconds: float,
    streams: int = 0,
    more: More = _no_more,
    *,
    once: bool = False,
) -> Asked:
    """Let `clients` ask one after the other, the last `streams` of them in streams.

    Args:
        asker: the connection, which the clients share.
        questions: how many it knows; they are asked in turn.
        clients: how many ask.
        seconds: how long at most; questions that are under way then are waited for.
        streams: how many of the clients stream.
        more: whether to go on all the same once the seconds are over.
        once: end, too, when the last question has been asked.
    """
    samples: list[Sample] = []
    start = perf_counter()
    numbers = iter(range(questions if once else 1 << 62))

    async def client(stream: bool) -> None:
        while perf_counter() - start < seconds or more():
            number = next(numbers, None)
            if number is None:
                return
            samples.append(await _ask(asker, number % questions, stream))

    await asyncio.gather(*(client(number >= clients - streams) for number in range(clients)))
    return Asked(samples, perf_counter() - start)


async def steady(
    asker: Asker, questions: int, rate: float, seconds: float, streams: bool = False, more: More = _no_more
) -> Asked:
    """Ask `rate` questions a second whatever becomes of them, every other one in a stream where `streams` is set."""
    start = perf_counter()
    tasks = []
    for number in itertools.count():
        if number >= rate * seconds and not more():
            break
        due = start + number / rate
        # Where the loop lags behind it catches up, but lets others run in between.
        await asyncio.sleep(max(0.0, due - perf_counter()))
        tasks.append(asyncio.ensure_future(_ask(asker, number % questions, streams and number % 2 == 1, due)))
    samples = await asyncio.gather(*tasks)
    return Asked(samples, perf_counter() - start)


async def _ask(asker: Asker, index: int, stream: bool, due: float | None = None) -> Sample:
    sent = perf_counter()
    told = await asker.ask(index, stream=stream)
    late = 0.0 if due is None else 1000 * (sent - due)
    return Sample(index, sent, perf_counter(), late, told)
