"""A report as a table on the console."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Report = Mapping[str, Any]


def print_report(console: Console, report: Report) -> None:
    """Print the scores with their intervals and the swap in one line."""
    console.print(_scores(report))
    console.print(describe_outcome(report))
    console.print(describe_swap(report["swap"]))


def describe_outcome(report: Report) -> str:
    """One sentence on what the round came to."""
    swap, macro = report["swap"], report["macro"]
    skills = f"mean skill {macro['before']['skill']:.2f} before, {macro['after']['skill']:.2f} after"
    if swap["promoted"]:
        return f"Promoted: version {swap['to']} serves in place of {swap['from']} ({skills})."
    return f"Not promoted, version {swap['from']} keeps serving ({skills}): {'; '.join(swap['reasons'])}."


def describe_swap(swap: Mapping[str, Any]) -> str:
    """One sentence on how the questions fared."""
    steady, during = _milliseconds(swap["p99_steady_ms"]), _milliseconds(swap["p99_during_ms"])
    return f"{swap['queries']} questions asked, {swap['failed']} failed; p99 {steady} steady, {during} during the swap."


def best_baseline(scores: Mapping[str, float]) -> tuple[str, float]:
    """Name and score of the best cheating baseline of a task."""
    return max(scores.items(), key=lambda item: item[1])


def _scores(report: Report) -> Table:
    caption = "blind: the new student shown grey images; near: neighbours among the training texts"
    table = Table(
        title="Held-out rooms: score (95% interval)",
        caption=caption,
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("task", "baseline", "before", "after", "skill", "blind", "near"):
        table.add_column(name, justify="left" if name in ("task", "baseline") else "right", no_wrap=True)
    for task, after in report["after"].items():
        name, score = best_baseline(report["baselines"][task])
        references = (_reference(report["references"][task], name) for name in ("blind", "nearest"))
        table.add_row(task, f"{score:.2f} {name}", *_sides(report["before"][task], after), *references)
    table.add_section()
    table.add_row("mean", "", *_sides(report["macro"]["before"], report["macro"]["after"]), "", "")
    return table


def _reference(references: Mapping[str, float], name: str) -> str:
    return f"{references[name]:.2f}" if name in references else "-"


def _sides(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, str, str]:
    return _score(before), _score(after), f"{after['skill']:.2f}"


def _score(side: Mapping[str, float]) -> str:
    interval = f"{side['low']:.2f}-{side['high']:.2f}".replace("0.", ".")
    return f"{side['score']:.2f} ({interval})"


def _milliseconds(value: float | None) -> str:
    return "no questions" if value is None else f"{value:.0f} ms"
