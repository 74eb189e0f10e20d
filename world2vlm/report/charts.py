"""Charts as inline SVG: no library, no script, sharp at any size. Colours come from the page's style sheet."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from world2vlm.report.asked import Asked
from world2vlm.report.console import best_baseline

_WIDTH, _HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 16, 36
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_SECONDS_BEFORE_SWAP = 30
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def score_chart(report: Mapping[str, Any]) -> str:
    """Bars of each task's score before and after with 95% intervals, and a line at its best cheating baseline."""
    tasks = list(report["after"])
    slot = _PLOT_WIDTH / max(1, len(tasks))
    bar = min(34.0, slot * 0.3)
    parts = [_grid(1.0, "")]
    for index, task in enumerate(tasks):
        centre = _LEFT + slot * (index + 0.5)
        for offset, side in ((-bar - 1, "before"), (1, "after")):
            parts.append(_bar(centre + offset, bar, report[side][task], side))
        name, score = best_baseline(report["baselines"][task])
        y = _y(score, 1.0)
        parts.append(
            f'<line class="baseline" x1="{centre - bar - 6:.1f}" x2="{centre + bar + 6:.1f}" y1="{y:.1f}" y2="{y:.1f}">'
            f"<title>{escape(task)}: best baseline {escape(name)} {score:.3f}</title></line>"
        )
        parts.append(_text(centre, _HEIGHT - 14, task, "middle"))
    return _svg(parts, "Scores by task before and after the round")


def latency_chart(asked: Sequence[Asked], swap: Mapping[str, Any]) -> str:
    """One dot a question: when it was asked, counted from the swap's start, and how long its answer took.

    The swap is a band; what was asked more than half a minute before it is left out.
    """
    window: Mapping[str, float] = swap["window"]
    start = window["start"] - _SECONDS_BEFORE_SWAP
    shown = [one for one in asked if one.at >= start]
    if not shown:
        return ""
    length = max(shown[-1].at, window["end"]) - start
    top = _round_up(max(one.latency_ms for one in shown))
    first = min((one.version for one in asked if one.version), default="", key=lambda version: (len(version), version))

    def x(at: float) -> float:
        return _LEFT + _PLOT_WIDTH * (at - start) / length

    left, right = x(window["start"]), x(window["end"])
    parts = [
        _grid(top, " ms"),
        f'<rect class="swap" x="{left:.1f}" y="{_TOP}" width="{max(2.0, right - left):.1f}" height="{_PLOT_HEIGHT}"/>',
        _text(left - 6, _TOP + 12, "swap" if swap["promoted"] else "no swap: refused", "end"),
        *(_dot(x(one.at), _y(one.latency_ms, top), one, first) for one in shown),
        *(
            _text(x(window["start"] + second), _HEIGHT - 14, f"{second:+d} s" if second else "0", "middle")
            for second in range(-_SECONDS_BEFORE_SWAP, int(length) - _SECONDS_BEFORE_SWAP + 1, 10)
        ),
    ]
    return _svg(parts, "Latency of each question around the swap")


def reliability_chart(calibration: Mapping[str, Any]) -> str:
    """A panel for each kind of answer: how often answers were right against their probability, before and after."""
    slot = _PLOT_WIDTH / max(1, len(calibration))
    parts = []
    for index, (kind, figures) in enumerate(calibration.items()):
        left = _LEFT + slot * index + (slot - _PLOT_HEIGHT) / 2
        parts.append(_square(left))
        for side in ("before", "after"):
            points = [(left + _PLOT_HEIGHT * b["probability"], _y(b["right"], 1.0)) for b in figures[side]["bins"]]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<g class="line {side}"><polyline points="{path}"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
            parts.append("</g>")
        label = f"{kind}, n = {figures['n']}: ECE {figures['before']['ece']:.3f} → {figures['after']['ece']:.3f}"
        parts.append(_text(left + _PLOT_HEIGHT / 2, _HEIGHT - 14, label, "middle"))
    return _svg(parts, "Share of right answers against their probability")


def _square(left: float) -> str:
    right, bottom = left + _PLOT_HEIGHT, _TOP + _PLOT_HEIGHT
    return (
        f'<rect class="frame" x="{left:.1f}" y="{_TOP}" width="{_PLOT_HEIGHT}" height="{_PLOT_HEIGHT}"/>'
        f'<line class="grid" x1="{left:.1f}" y1="{bottom}" x2="{right:.1f}" y2="{_TOP}"/>'
        + _text(left - 6, bottom, "0", "end")
        + _text(left - 6, _TOP + 10, "1", "end")
    )


def _round_up(value: float) -> float:
    """The smallest of 1, 2, 4, 8 times a power of ten that is not below `value`: its quarters are round numbers."""
    power = 10.0 ** math.floor(math.log10(max(value, 1.0)))
    return next(factor * power for factor in (1, 2, 4, 8, 10) if factor * power >= value)


def _dot(x: float, y: float, one: Asked, first: str) -> str:
    kind = "failed" if one.error else "old" if one.version == first else "new"
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{4 if one.error else 2}"/>'


def _bar(x: float, width: float, side: Mapping[str, float], kind: str) -> str:
    top, low, high = (_y(side[key], 1.0) for key in ("score", "low", "high"))
    middle = x + width / 2
    title = f"{kind}: {side['score']:.3f} ({side['low']:.3f} to {side['high']:.3f}), n = {side['n']:.0f}"
    return (
        f'<g class="{kind}"><title>{title}</title>'
        f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_y(0, 1.0) - top:.1f}" rx="2"/>'
        f'<line class="interval" x1="{middle:.1f}" x2="{middle:.1f}" y1="{low:.1f}" y2="{high:.1f}"/></g>'
    )


def _grid(top: float, unit: str) -> str:
    lines = []
    for share in _SHARES:
        y = _y(share * top, top)
        label = f"{share * top:.2f}" if top <= 1 else f"{share * top:.0f}"
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(_text(_LEFT - 6, y + 4, label, "end"))
    return "".join(lines) + (_text(_LEFT + 4, _TOP + 10, unit.strip(), "start") if unit else "")


def _y(value: float, top: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - min(max(value / top, 0.0), 1.0))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: Iterable[str], label: str) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">{body}</svg>'
