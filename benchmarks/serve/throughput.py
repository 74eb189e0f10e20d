"""Throughput with many clients and latency with one, ours beside the others; the sides take turns."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.serve.asking import OK
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.load import Asked, closed, percentile
from benchmarks.serve.questions import Item
from benchmarks.serve.sides import Side
from benchmarks.serve.usage import cpu_seconds

CLIENTS = 16
_WARM_S = 0.4
# Of a round's questions, what one client alone asks; and of the others', what warms a side up.
_ALONE, _WARM = 0.25, 0.25
OURS, SEEN = "ours", "ours, pictures seen before"


@dataclass(frozen=True)
class Round:
    """One side's loads in one round, and the seconds of processor time that it took for them."""

    many: Asked
    one: Asked
    many_cpu_s: float
    one_cpu_s: float


def compare(sides: Sequence[Side], items: Sequence[Item], seen: Sequence[Item], rounds: int, seconds: float) -> Part:
    """Load each side in turn, `rounds` times: 16 clients, then one, for `seconds` each. Ratios are taken in a round.

    Args:
        sides: ours first.
        items: questions that all have pictures of their own.
        seen: questions that share pictures; only sides with a cache gain by them.
        rounds: how often.
        seconds: how long each load lasts.
    """
    found: dict[str, list[Round]] = defaultdict(list)
    for number in range(rounds):
        for side in sides:
            with side.alone(sides):
                # No picture is sent twice: what remembers pictures must not profit from that.
                share = len(items) // rounds
                found[side.name].append(_load(side, items[number * share : (number + 1) * share], seconds, once=True))
                if side.name in (OURS, "Triton"):
                    found[f"{side.name}, pictures seen before"].append(_load(side, seen, seconds, once=False))
    figures = {name: _figures(loads) for name, loads in found.items()}
    return Part({**figures, "same answers": _agreement(found)}, _claims(found))


def _load(side: Side, items: Sequence[Item], seconds: float, *, once: bool) -> Round:
    alone = int(_ALONE * len(items))
    warm = int(_WARM * (len(items) - alone))
    parts = items[:alone], items[alone : alone + warm], items[alone + warm :]

    async def run() -> Round:
        one, first, many = (side.connect(part) for part in parts)
        try:
            await closed(first, len(parts[1]), CLIENTS, _WARM_S, once=once)
            start = cpu_seconds(side.pid)
            asked = await closed(many, len(parts[2]), CLIENTS, seconds, once=once)
            between = cpu_seconds(side.pid)
            by_one = await closed(one, len(parts[0]), 1, seconds, once=once)
            return Round(asked, by_one, between - start, cpu_seconds(side.pid) - between)
        finally:
            for asker in (one, first, many):
                await asker.close()

    return asyncio.run(run())


def _figures(rounds: Sequence[Round]) -> dict[str, Any]:
    failed = sum(len(load.samples) - len(load.of(OK)) for each in rounds for load in (each.many, each.one))
    return {
        "answers/s": median(map(_rate, rounds)),
        "p50 at 16, ms": median(percentile(each.many.of(OK), 50) for each in rounds),
        "p99 at 16, ms": median(percentile(each.many.of(OK), 99) for each in rounds),
        "p50 at 1, ms": median(map(_latency, rounds)),
        "p99 at 1, ms": median(percentile(each.one.of(OK), 99) for each in rounds),
        # What a busy machine does not change.
        "cpu ms an answer at 16": median(1000 * each.many_cpu_s / len(each.many.samples) for each in rounds),
        "cpu ms an answer at 1": median(1000 * each.one_cpu_s / len(each.one.samples) for each in rounds),
        "tokens": median(each.many.tokens for each in rounds),
        "failed": failed,
        "each round, answers/s": list(map(_rate, rounds)),
        "each round, p50 at 1, ms": list(map(_latency, rounds)),
    }


def _rate(load: Round) -> float:
    return load.many.per_second


def _latency(load: Round) -> float:
    return percentile(load.one.of(OK), 50)


def _agreement(found: Mapping[str, list[Round]]) -> dict[str, float]:
    """The share of questions to which a side says what ours says: they run the same model."""
    ours = _texts(found[OURS])
    shares = {}
    for name, rounds in found.items():
        if name != OURS and "seen" not in name:
            theirs = _texts(rounds)
            both = ours.keys() & theirs.keys()
            shares[name] = sum(ours[key] == theirs[key] for key in both) / max(1, len(both))
    return shares


def _texts(rounds: Sequence[Round]) -> dict[tuple[int, int], str]:
    return {
        (number, sample.index): sample.told.text for number, each in enumerate(rounds) for sample in each.one.of(OK)
    }


def _claims(found: Mapping[str, list[Round]]) -> list[Claim]:
    claims = []
    if others := [found[name] for name in ("generate()", "LitServe") if name in found]:
        fastest = max(others, key=lambda rounds: median(map(_rate, rounds)))
        quickest = min(others, key=lambda rounds: median(map(_latency, rounds)))
        better = "against the better of generate() and LitServe" if len(others) > 1 else "against generate()"
        for name, kind in ((OURS, "new pictures"), (SEEN, "pictures seen before")):
            rate, latency = _ratio(found[name], fastest, _rate), _ratio(found[name], quickest, _latency)
            claims += [
                Claim(f"answers/s at {CLIENTS} clients {better}, {kind}", rate, 3, True),
                Claim(f"p50 at one client {better}, {kind}", latency, 0.5),
            ]
    if "Triton" in found:
        mine, theirs = found[OURS], found["Triton"]
        claims += [
            Claim("answers/s against Triton's python backend", _ratio(mine, theirs, _rate), 1, True),
            Claim("p50 at one client against Triton's", _ratio(mine, theirs, _latency), 1),
        ]
    return claims


def _ratio(mine: Sequence[Round], theirs: Sequence[Round], of: Callable[[Round], float]) -> float:
    """Of a figure, the median over the rounds: a machine whose speed changes has changed little within one."""
    return median(of(own) / of(other) for own, other in zip(mine, theirs, strict=True))
