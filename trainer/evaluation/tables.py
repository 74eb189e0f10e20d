"""Results as rows of text, for the console and for markdown."""

from collections.abc import Mapping, Sequence

from trainer.evaluation.statistics import MACRO, best_baseline

Summary = Mapping[str, Mapping[str, float]]
Row = tuple[str, ...]

_HEADER = ("task", "n", "best baseline", "before", "after", "skill before", "skill after")


def table(
    before: Summary, after: Summary, baselines: Mapping[str, Mapping[str, float]], scenes: int | None = None
) -> list[Row]:
    """Lay two summaries of the same records side by side: the header, a row for each task, the mean over tasks last.

    Where they come from one of `scenes` alone there are no intervals to show.
    """
    tasks = [*(task for task in after if task != MACRO), MACRO]
    shown = scenes != 1
    return [_HEADER, *(_row(task, before[task], after[task], _baseline(task, baselines), shown) for task in tasks)]


def markdown(rows: Sequence[Row]) -> str:
    """Format rows, the header first, as a markdown table that ends with a line break."""
    header, *rest = rows
    lines = [header, tuple("---" for _ in header), *rest]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(
    task: str, before: Mapping[str, float], after: Mapping[str, float], baseline: str, with_intervals: bool
) -> Row:
    scores, skills = (
        [
            f"{side[name]:.{digits}f}"
            + (f" ({side[low]:.{digits}f} to {side[high]:.{digits}f})" if with_intervals else "")
            for side in (before, after)
        ]
        for name, low, high, digits in (("score", "low", "high", 3), ("skill", "skill_low", "skill_high", 2))
    )
    return task, f"{after['n']:.0f}", baseline, *scores, *skills


def _baseline(task: str, baselines: Mapping[str, Mapping[str, float]]) -> str:
    best = best_baseline(task, baselines)
    names = [name for name, score in baselines.get(task, {}).items() if score == best]
    return f"{best:.3f} {names[0]}" if names else ""
