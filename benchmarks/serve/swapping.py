"""Swaps while everybody asks: to a good checkpoint, to a corrupted one, and to one that fails its canary."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.serve import checkpoints
from benchmarks.serve.asking import OK, Asker
from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.load import Asked, More, Sample, closed, percentile, percentile_of, steady
from benchmarks.serve.questions import Item
from benchmarks.serve.sides import Side
from world2vlm.errors import DataCorruptedError, GateRejectedError, PreconditionError, World2VLMError
from world2vlm.vlm import StudentModel
from world2vlm.vlm.onnx_student import OnnxStudent

# Answers by version and question.
Expected = Mapping[str, Sequence[str]]
Load = Callable[[Asker, float, More], Awaitable[Asked]]

_CLOSED_CLIENTS, _CLOSED_STREAMS = 4, 2
_TIMES = 2
_MAX_NEW_TOKENS = 64
_LEAST_ANSWERS = 5000
_CORRUPTED = (DataCorruptedError.code,)
_UNFIT = (GateRejectedError.code, PreconditionError.code)


@dataclass(frozen=True)
class Change:
    """One change of what serves: its name, what does it, and how it may end: `ok` or an error's code."""

    name: str
    run: Callable[[], object]
    ends: tuple[str, ...] = ("ok",)


@dataclass(frozen=True)
class Window:
    """When a change was under way, on this process's clock, and how it ended."""

    name: str
    start: float
    end: float
    ended: str

    def has(self, sample: Sample) -> bool:
        """Whether a question was under way meanwhile."""
        return sample.sent < self.end and sample.ended > self.start


@dataclass(frozen=True)
class Prepared:
    """Four published versions, the first of which serves, and the questions that tell the first two apart."""

    items: Sequence[Item]
    expected: Expected


def prepare(store: Path, checkpoint: Path, other: Path, unfit: Path, items: Sequence[Item]) -> Prepared:
    """Publish versions 2 (another student), 3 (corrupted) and 4 (fails its canary).

    Only questions are kept whose answers by the first two differ, and depend neither on what else is in their batch nor
    on the engine: those show from which weights an answer came.
    """
    versions = [checkpoints.publish(store, folder, key) for folder, key in ((other, "2"), (checkpoint, "3"))]
    checkpoints.corrupt(store, versions[-1])
    versions.append(checkpoints.publish(store, unfit, "4"))
    assert versions == [2, 3, 4], versions
    answers, stable = [], [True] * len(items)
    for folder in (checkpoint, other):
        prompts = [item.prompt for item in items]
        together = [done.text for done in StudentModel.load(folder).answer(prompts, _MAX_NEW_TOKENS)]
        served = OnnxStudent.load(folder, store.parent / "graphs")
        alone = [served.answer([prompt], _MAX_NEW_TOKENS)[0].text for prompt in prompts]
        stable = [was and a == b for was, a, b in zip(stable, together, alone, strict=True)]
        answers.append(alone)
    kept = [index for index, first in enumerate(answers[0]) if stable[index] and first != answers[1][index]]
    if len(kept) < 2:
        raise SystemExit("the two versions answer alike: nothing would show a mixed answer")
    expected = {str(number + 1): [texts[index] for index in kept] for number, texts in enumerate(answers)}
    return Prepared([items[index] for index in kept], expected)


def swap_under_load(side: Side, prepared: Prepared, swap: Callable[[int], object], seconds: float) -> Part:
    """Three swaps, four times over, under a closed loop and under an open one at half of what the service can do."""
    questions = len(prepared.items)

    async def closed_load(asker: Asker, duration: float, more: More) -> Asked:
        return await closed(asker, questions, _CLOSED_CLIENTS, duration, _CLOSED_STREAMS, more=more)

    good, back = (Change("good", partial(swap, version)) for version in (2, 1))
    bad = [Change("corrupted", partial(swap, 3), _CORRUPTED), Change("fails its canary", partial(swap, 4), _UNFIT)]
    # A single swap is over before a hundred questions were asked: too few for a percentile.
    changes = [good, *bad, back, *bad] * _TIMES
    warm, _ = _run(side, prepared, closed_load, [], min(3.0, seconds))
    there, windows_closed = _run(side, prepared, closed_load, changes, seconds)
    capacity = warm.per_second

    async def open_load(asker: Asker, duration: float, more: More) -> Asked:
        return await steady(asker, questions, capacity / 2, duration, streams=True, more=more)

    half, windows_open = _run(side, prepared, open_load, changes, seconds)
    figures = {
        "questions that tell the versions apart": questions,
        "capacity, answers/s": capacity,
        "closed loop, 2 clients and 2 streams": _figures(there, windows_closed, prepared.expected),
        "open loop at half of capacity, half of it streams": _figures(half, windows_open, prepared.expected),
    }
    return Part(figures, _claims(figures, [*windows_closed, *windows_open], bad))


def _run(
    side: Side, prepared: Prepared, load: Load, changes: Sequence[Change], seconds: float
) -> tuple[Asked, list[Window]]:
    async def run() -> tuple[Asked, list[Window]]:
        asker = side.connect(prepared.items)
        pause = seconds / (len(changes) + 1)
        try:
            windows: list[Window] = []
            # A change that takes its time is watched to its end.
            asking = asyncio.ensure_future(load(asker, seconds, lambda: len(windows) < len(changes)))
            for change in changes:
                await asyncio.sleep(pause)
                windows.append(await asyncio.to_thread(_change, change))
            return await asking, windows
        finally:
            await asker.close()

    return asyncio.run(run())


def _change(change: Change) -> Window:
    start, ended = perf_counter(), "ok"
    try:
        change.run()
    except World2VLMError as error:
        ended = error.code
    return Window(change.name, start, perf_counter(), ended)


def _figures(asked: Asked, windows: Sequence[Window], expected: Expected) -> dict[str, Any]:
    answered = asked.of(OK)
    inside = [sample for sample in answered if any(window.has(sample) for window in windows)]
    outside = [sample for sample in answered if not any(window.has(sample) for window in windows)]
    mixed = [s for s in answered if s.told.text != expected.get(s.told.version, {s.index: None})[s.index]]
    steady_p99 = percentile(outside, 99)
    return {
        "answers": {
            "asked": len(asked.samples),
            "failed": len(asked.samples) - len(answered),
            "mixed": len(mixed),
            "of the first": sum(sample.told.version == "1" for sample in answered),
            "of the second": sum(sample.told.version == "2" for sample in answered),
            "in windows": len(inside),
            "per second": asked.per_second,
        },
        "statuses": dict(Counter(sample.told.status for sample in asked.samples)),
        "latency, ms": {
            "steady p50": percentile(outside, 50),
            "steady p99": steady_p99,
            "in windows p50": percentile(inside, 50),
            "in windows p99": percentile(inside, 99),
            "in windows most": percentile(inside, 100),
            "sent late, p99": percentile_of([sample.late_ms for sample in asked.samples], 99),
        },
        "p99 in windows against steady": percentile(inside, 99) / steady_p99,
        "swaps": {
            name: {
                "ended": [window.ended for window in named],
                "seconds": [window.end - window.start for window in named],
                "p99, ms": percentile([s for s in answered if any(window.has(s) for window in named)], 99),
            }
            for name, named in _by_name(windows).items()
        },
    }


def _by_name(windows: Sequence[Window]) -> dict[str, list[Window]]:
    names = dict.fromkeys(window.name for window in windows)
    return {name: [window for window in windows if window.name == name] for name in names}


def _claims(figures: Mapping[str, Any], windows: Sequence[Window], bad: Sequence[Change]) -> list[Claim]:
    loads = [figure for figure in figures.values() if isinstance(figure, Mapping)]
    answers = [load["answers"] for load in loads]
    ends = {change.name: change.ends for change in bad}
    wrong = [window for window in windows if window.ended not in ends.get(window.name, ("ok",))]
    return [
        Claim("answers under swaps", sum(each["asked"] for each in answers), _LEAST_ANSWERS, True),
        Claim("failed answers", sum(each["failed"] for each in answers), 0),
        Claim("mixed answers", sum(each["mixed"] for each in answers), 0),
        Claim("swaps that ended otherwise than they should", len(wrong), 0),
        Claim("p99 in swap windows against steady, open loop", loads[1]["p99 in windows against steady"], 1.5),
        Claim("p99 in swap windows against steady, closed loop", loads[0]["p99 in windows against steady"], 1.5),
    ]
