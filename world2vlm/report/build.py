"""`report.json` from a round's files and the questions that were asked meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from world2vlm.errors import PreconditionError
from world2vlm.report.asked import Asked
from world2vlm.report.machine import describe_machine, describe_versions
from world2vlm.rounds import Event, RoundState

MACRO = "macro"
_PHASES = ("verify", "load", "warm", "canary", "drain")
_STEPS = ("imagine", "dataset", "distil", "evaluate", "promote")


@dataclass(frozen=True)
class Timings:
    """When a demonstration began, when its round did, and when it ended; seconds since the epoch."""

    started: float
    round_started: float
    ended: float


def build_report(
    state: RoundState, asked: Sequence[Asked], timings: Timings, peaks_mb: Mapping[str, float]
) -> dict[str, Any]:
    """Gather everything about a round that is done.

    Args:
        state: the round.
        asked: the questions asked while it ran, in order.
        timings: when what began and ended.
        peaks_mb: largest memory by process.

    Raises:
        PreconditionError: a step has no result yet.
    """
    dataset, training, evaluation, promotion = (
        _result(state, name) for name in ("dataset", "training", "evaluation", "promotion")
    )
    ends = _step_ends(state.events())
    window = (ends["promote"][0], ends["promote"][1])
    before, after = dict(evaluation["before"]), dict(evaluation["after"])
    return {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "seconds": _seconds(ends, timings),
        "baselines": evaluation["baselines"],
        "references": evaluation["references"],
        "macro": {"before": before.pop(MACRO), "after": after.pop(MACRO)},
        "before": before,
        "after": after,
        "probes": evaluation["probes"],
        "calibration": evaluation["calibration"],
        "decision": evaluation["decision"],
        "swap": _swap(promotion, asked, window),
        "dataset": {
            **{key: dataset[key] for key in ("digest", "records", "splits", "by_task", "bundles", "rejected")},
            "missing_tasks": dataset.get("missing_tasks", []),
        },
        "checkpoint": {key: training[key] for key in ("version", "digest", "parent", "recipe", "steps", "metrics")},
        "round": state.plan().to_json(),
        "memory_peak_mb": dict(peaks_mb),
    }


def _result(state: RoundState, step: str) -> dict[str, Any]:
    payload = state.read_step(step)
    if payload is None:
        raise PreconditionError(f"the round has no {step}.json yet")
    return payload


def _step_ends(events: Sequence[Event]) -> dict[str, tuple[float, float]]:
    """Step -> (start, end) of the last event that says it was done, seconds since the epoch."""
    spans = {}
    for event in events:
        step = event.text.split()[0]
        if step in _STEPS and "seconds" in event.figures:
            end = datetime.fromisoformat(event.at).timestamp()
            spans[step] = (end - float(event.figures["seconds"]), end)
    missing = [step for step in _STEPS if step not in spans]
    if missing:
        raise PreconditionError(f"the round's events do not say how long it took to {', '.join(missing)}")
    return spans


def _seconds(ends: Mapping[str, tuple[float, float]], timings: Timings) -> dict[str, float]:
    """Wall-clock seconds from the end of one step to the end of the next, and in all."""
    seconds, last = {"start": timings.round_started - timings.started}, timings.round_started
    for step in _STEPS:
        seconds[step] = ends[step][1] - last
        last = ends[step][1]
    seconds["total"] = timings.ended - timings.started
    return {step: round(value, 1) for step, value in seconds.items()}


def _swap(promotion: Mapping[str, Any], asked: Sequence[Asked], window: tuple[float, float]) -> dict[str, Any]:
    """How questions fared: `during` overlapped the swap, `steady` were asked after it with nothing else running."""
    start, end = window
    promoted = bool(promotion["promoted"])
    overlapping = [one.latency_ms for one in asked if one.at <= end and one.at + one.latency_ms / 1000 >= start]
    during = overlapping if promoted else []
    steady = [one.latency_ms for one in asked if one.at > end]
    failed = [one for one in asked if one.error]
    phases = promotion["swap"].get("phases_ms", {})
    return {
        "promoted": promoted,
        "reasons": list(promotion["reasons"]),
        "from": promotion["from"],
        "to": promotion["version"] if promoted else promotion["from"],
        "queries": len(asked),
        "failed": len(failed),
        "errors": sorted({one.error for one in failed}),
        "versions_seen": sorted({one.version for one in asked if one.version}),
        "queries_during": len(during),
        "queries_steady": len(steady),
        "p50_steady_ms": _percentile(steady, 50),
        "p99_steady_ms": _percentile(steady, 99),
        "p50_during_ms": _percentile(during, 50),
        "p99_during_ms": _percentile(during, 99),
        "window": {"start": start, "end": end},
        "phases_ms": {phase: phases[phase] for phase in _PHASES if phase in phases},
    }


def _percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile; None of nothing."""
    return round(float(np.percentile(values, percent)), 1) if values else None
