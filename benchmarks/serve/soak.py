"""Swap after swap in one process, while somebody asks: nothing may grow."""

import asyncio
from collections.abc import Sequence
from statistics import median
from time import perf_counter

from benchmarks.serve.asking import OK
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.load import closed
from benchmarks.serve.questions import Item
from benchmarks.serve.sides import Side, controller
from benchmarks.serve.usage import Usage

# What grows once (allocators, caches) is grown by then.
_WARM_SHARE = 0.25
_ASKED_S = 0.1
_BOUND_MB_A_SWAP = 0.05


def soak(side: Side, items: Sequence[Item], swaps: int, weights: int) -> Part:
    """Swap `swaps` times between versions 1 and 2, and compare the second quarter of the swaps with the last.

    Args:
        side: our service, on version 1.
        items: what is asked between the swaps.
        swaps: how many, at least 8.
        weights: the size of a checkpoint's weights in bytes, to compare growth with.
    """
    used: list[Usage] = []
    failed, start = 0, perf_counter()
    with controller(side) as control:
        for number in range(swaps):
            failed += asyncio.run(_ask(side, items))
            control.swap(2 - number % 2)
            used.append(Usage.of(side.pid))
    quarter = max(1, int(_WARM_SHARE * swaps))
    early, late = used[quarter : 2 * quarter], used[-quarter:]

    def growth(name: str) -> float:
        first, last = (median(float(getattr(each, name)) for each in part) for part in (early, late))
        return last - first

    megabytes = growth("memory") / 1e6
    figures = {
        "swaps": swaps,
        "seconds": perf_counter() - start,
        "failed": failed,
        "memory at the swaps, MB": [round(each.memory / 1e6, 1) for each in used[:: max(1, swaps // 20)]],
        "threads": [each.threads for each in used[:: max(1, swaps // 20)]],
        "files": [each.files for each in used[:: max(1, swaps // 20)]],
        "weights, MB": weights / 1e6,
        "growth from the second quarter to the last": {
            "MB": megabytes,
            "threads": growth("threads"),
            "files": growth("files"),
        },
    }
    # From the middle of the second quarter to that of the last it is half of the swaps.
    claims = [
        Claim("growth of memory, MB a swap", megabytes / (swaps / 2), _BOUND_MB_A_SWAP),
        Claim("growth of threads", growth("threads"), 1),
        Claim("growth of open files", growth("files"), 0),
        Claim("failed answers in the soak", failed, 0),
    ]
    return Part(figures, claims)


async def _ask(side: Side, items: Sequence[Item]) -> int:
    asker = side.connect(items)
    try:
        asked = await closed(asker, len(items), 2, _ASKED_S, streams=1)
    finally:
        await asker.close()
    return len(asked.samples) - len(asked.of(OK))
