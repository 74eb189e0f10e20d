"""Four times what the service can do: who is let in is answered as fast as ever, the others hear so at once."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from benchmarks.serve.asking import OK
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.load import Asked, closed, percentile, percentile_of, steady
from benchmarks.serve.questions import Item
from benchmarks.serve.sides import Side
from benchmarks.serve.usage import Usage

TIMES = 4
REFUSED = "RESOURCE_EXHAUSTED"
# As many as are under way at once in the service: its batch, and as many that wait.
CLIENTS = 16
SETTINGS = {"MAX_BATCH": 8, "MAX_QUEUE": 8}
_SHORT_S = 5.0


def overload(side: Side, items: Sequence[Item], seconds: float) -> Part:
    """Ask at 4x of capacity for `seconds`, and before and after as fast as a full house is answered.

    Args:
        side: ours.
        items: questions with pictures of their own, some thousands.
        seconds: how long.
    """
    before, burst, after, first, last = asyncio.run(_run(side, items, seconds))
    admitted, refused = burst.of(OK), burst.of(REFUSED)
    statuses = Counter(sample.told.status for sample in burst.samples)
    full, growth = percentile(before.of(OK), 99), (last.memory - first.memory) / 1e6
    figures = {
        "capacity, answers/s": before.per_second,
        "asked a second": TIMES * before.per_second,
        "really asked a second": len(burst.samples) / burst.seconds,
        "statuses": dict(statuses),
        "answers/s meanwhile": burst.per_second,
        "answers/s afterwards": after.per_second,
        "a full house: p99, ms": full,
        "admitted, ms": {"p50": percentile(admitted, 50), "p99": percentile(admitted, 99)},
        "refused, ms": {p: percentile(refused, float(p[1:])) for p in ("p50", "p99", "p100")},
        "refused within 50 ms": sum(sample.ms <= 50 for sample in refused) / max(1, len(refused)),
        "asked later than planned, p99, ms": percentile_of([sample.late_ms for sample in burst.samples], 99),
        "growth of memory, MB": growth,
    }
    others = len(burst.samples) - len(admitted) - len(refused)
    claims = [
        Claim("p99 of those let in, against a full house", percentile(admitted, 99) / full, 2),
        Claim("refusals, p99, ms", percentile(refused, 99), 50),
        Claim("neither answered nor refused", others, 0),
        Claim("share refused", len(refused) / len(burst.samples), 0.5, True),
        Claim("failed answers afterwards", len(after.samples) - len(after.of(OK)), 0),
        Claim("growth of memory, MB", growth, 16),
    ]
    return Part(figures, claims)


async def _run(side: Side, items: Sequence[Item], seconds: float) -> tuple[Asked, Asked, Asked, Usage, Usage]:
    # More than any cache holds, each, so that no picture is known when its turn comes again.
    quarter = len(items) // 4
    calm, stormy = side.connect(items[:quarter]), side.connect(items[quarter:])
    try:
        await closed(calm, quarter, CLIENTS, 2 * _SHORT_S)  # until the caches hold what they will
        before = await closed(calm, quarter, CLIENTS, _SHORT_S)
        first = Usage.of(side.pid)
        burst = await steady(stormy, len(items) - quarter, TIMES * before.per_second, seconds)
        last = Usage.of(side.pid)
        return before, burst, await closed(calm, quarter, CLIENTS, _SHORT_S), first, last
    finally:
        await calm.close()
        await stormy.close()
