"""Memory over a swap, with checkpoints that are heavy enough for it to be the weights'."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.serve import checkpoints
from benchmarks.serve.asking import OK
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.load import Asked, steady
from benchmarks.serve.questions import Item
from benchmarks.serve.sides import Side, controller, ours
from benchmarks.serve.usage import Usage, peak_of

_SWAPS = 3
_ENOUGH_S = 600.0
# Questions a second, times megabytes of weights: a student answers the slower the heavier it is.
_RATE_MB = 400.0
# Questions between two looks at whether the swap has ended; with a single one there would be no pause at all.
_SLICE = 4
# The cache of keys and values is next to nothing beside full-size weights; here it would not be.
_SETTINGS = {"MAX_BATCH": 2, "MAX_QUESTION_TOKENS": 160}


def measure_memory(folder: Path, items: Sequence[Item], megabytes: float) -> Part:
    """Swap to and fro between two heavy students while a client asks.

    In shares of one checkpoint's weights: 1 is what the service used before the swap, so 2 is a second set of weights
    beside it and nothing more. What a process takes beside its weights counts, too: the heavier they are, the less.
    """
    first, second = (checkpoints.heavy(folder / name, megabytes, seed) for seed, name in enumerate(("one", "two")))
    weights, rate = checkpoints.weight_bytes(first), _RATE_MB / megabytes
    peaks, after, drains, failed = list[float](), list[float](), list[float](), 0
    with ours(folder, first, _SETTINGS) as side, controller(side) as control:
        checkpoints.publish(folder / "store", second, "second")

        def swap(version: int) -> int:
            def change() -> None:
                drains.append(control.swap(version, _ENOUGH_S)["phases_ms"]["drain"] / 1000)

            return asyncio.run(_while_asked(side, items, rate, change))

        swap(2)  # what grows once is grown
        before = Usage.of(side.pid).memory
        for number in range(_SWAPS):
            with peak_of(side.pid) as peak:
                failed += swap(1 + number % 2)
            peaks.append(1 + (peak.memory - before) / weights)
            after.append(1 + (Usage.of(side.pid).memory - before) / weights)
    figures = {
        "weights, MB": weights / 1e6,
        "service, MB": before / 1e6,
        "peaks, shares": peaks,
        "most beside two sets of weights, MB": (max(peaks) - 2) * weights / 1e6,
        "after, shares": after,
        # Those of the setting `drain_seconds`, 30, are where the old version's last answers were not waited for.
        "drains, s": drains[1:],
        "failed": failed,
    }
    claims = [
        Claim("most memory in a swap, in shares of the weights", max(peaks), 2.1),
        Claim("memory after a swap, in shares of the weights", median(after), 1.1),
    ]
    return Part(figures, claims)


async def _while_asked(side: Side, items: Sequence[Item], rate: float, change: Callable[[], object]) -> int:
    """Ask questions at a rate during a change and after it; returns how many of them failed."""
    asker = side.connect(items)
    slices: list[Asked] = []
    try:
        changing = asyncio.ensure_future(asyncio.to_thread(change))
        while not changing.done():
            slices.append(await steady(asker, len(items), rate, _SLICE / rate))
        await changing
        slices.append(await steady(asker, len(items), rate, _SLICE / rate))
    finally:
        await asker.close()
    return sum(len(each.samples) - len(each.of(OK)) for each in slices)
