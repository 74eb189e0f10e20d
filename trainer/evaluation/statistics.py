"""Scores with intervals: a percentile bootstrap over scenes, since the records of one scene are not independent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.scored import Scored
from world2vlm.errors import InvalidInputError

Floats = NDArray[np.float64]
TaskBaselines = Mapping[str, Mapping[str, float]]
"""Task -> name of a baseline -> its score."""

MACRO = "macro"
RESAMPLES = 2000
LEVEL = 95.0


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """What changed from one student to another, on the same records.

    Attributes:
        macro: difference of the macro skill (the mean skill over tasks).
        tasks: difference of each task's score.
    """

    macro: Interval
    tasks: Mapping[str, Interval]


def resamples(groups: int, seed: int) -> Floats:
    """How often each group counts: float64 (1 + RESAMPLES, groups), the sample itself first, then bootstrap draws."""
    draws = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), RESAMPLES)
    weights: Floats = np.vstack([np.ones(groups), draws])
    return weights


def best_baseline(task: str, baselines: TaskBaselines) -> float:
    """The highest score any baseline reaches on a task; 0 where there is none."""
    return max(baselines.get(task, {}).values(), default=0.0)


def summarise(scored: Sequence[Scored], baselines: TaskBaselines, seed: int) -> dict[str, dict[str, float]]:
    """Summarise by task, and over tasks under the key `macro`.

    Returns:
        For each task `score`, `n`, `low`, `high` (95%), `skill`, `skill_low`, `skill_high`, `unparsed` (share of the
        responses that are no answer) and the means of the score's other parts. Under `macro` the same for the
        unweighted mean over tasks. Baselines count as exact: their own sampling error is in no interval.

    Raises:
        InvalidInputError: nothing to summarise.
    """
    tasks = _tasks(scored)
    scores = _bootstrap(scored, [item.overall for item in scored], tasks, seed)
    skills = _skill(scores, tasks, baselines)
    summary = {
        task: {
            **_figures(scores[:, column], skills[:, column]),
            **_parts([item.parts for item in scored if item.record.task_type == task]),
        }
        for column, task in enumerate(tasks)
    }
    macro = _figures(scores.mean(axis=1), skills.mean(axis=1))
    summary[MACRO] = {**macro, "n": len(scored), "unparsed": _unparsed([item.parts for item in scored])}
    return summary


def paired_bootstrap(
    before: Sequence[Scored], after: Sequence[Scored], baselines: TaskBaselines, seed: int
) -> Difference:
    """Compare two students on the same records: `after` minus `before`, with 95% intervals.

    Raises:
        InvalidInputError: the two were not asked the same questions in the same order, or none.
    """
    if [item.record for item in before] != [item.record for item in after]:
        raise InvalidInputError("students can be compared only on the same records in the same order")
    tasks = _tasks(after)
    gains = [new.overall - old.overall for old, new in zip(before, after, strict=True)]
    differences = _bootstrap(after, gains, tasks, seed)
    # Skill is the score less a constant, rescaled: in a difference the constant cancels.
    macro = (differences * _scale(tasks, baselines)).mean(axis=1)
    return Difference(
        macro=interval(macro),
        tasks={task: interval(differences[:, column]) for column, task in enumerate(tasks)},
    )


def _tasks(scored: Sequence[Scored]) -> list[str]:
    if not scored:
        raise InvalidInputError("nothing was scored")
    return sorted({item.record.task_type for item in scored})


def _bootstrap(scored: Sequence[Scored], values: Sequence[float], tasks: Sequence[str], seed: int) -> Floats:
    """Mean value by task: float64 (1 + RESAMPLES, tasks), the sample itself first.

    A resample draws as many scenes as there are, with replacement, for all tasks alike; where it holds no record of a
    task its mean is NaN, and so is what is computed over tasks: intervals leave such resamples out.
    """
    scenes = {scene: row for row, scene in enumerate(sorted({item.scene for item in scored}))}
    columns = {task: column for column, task in enumerate(tasks)}
    place = [scenes[item.scene] for item in scored], [columns[item.record.task_type] for item in scored]
    sums, counts = np.zeros((2, len(scenes), len(tasks)))
    np.add.at(sums, place, values)
    np.add.at(counts, place, 1.0)
    weights = resamples(len(scenes), seed)
    total = weights @ counts
    means: Floats = np.divide(weights @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)
    return means


def _scale(tasks: Sequence[str], baselines: TaskBaselines) -> Floats:
    """Skill per unit of score, by task: float64 (tasks,). A perfect baseline leaves nothing to show: 0."""
    room = np.array([1 - best_baseline(task, baselines) for task in tasks])
    scale: Floats = np.divide(1.0, room, out=np.zeros_like(room), where=room > 0)
    return scale


def _skill(scores: Floats, tasks: Sequence[str], baselines: TaskBaselines) -> Floats:
    return (scores - [best_baseline(task, baselines) for task in tasks]) * _scale(tasks, baselines)


def interval(values: Floats) -> Interval:
    """A value, the first of `values`, with the 95% interval of the others; those that are NaN are left out."""
    tail = (100 - LEVEL) / 2
    low, high = np.nanpercentile(values[1:], (tail, 100 - tail))
    return Interval(float(values[0]), float(low), float(high))


def _figures(scores: Floats, skills: Floats) -> dict[str, float]:
    score, skill = interval(scores), interval(skills)
    return {
        "score": score.value,
        "low": score.low,
        "high": score.high,
        "skill": skill.value,
        "skill_low": skill.low,
        "skill_high": skill.high,
    }


def _parts(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    others = sorted(set(parts[0]) - {"overall", "parsed"})
    means = {name: float(np.mean([item[name] for item in parts])) for name in others}
    return {"n": len(parts), "unparsed": _unparsed(parts), **means}


def _unparsed(parts: Sequence[Mapping[str, float]]) -> float:
    return 1 - float(np.mean([item["parsed"] for item in parts]))
