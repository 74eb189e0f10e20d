"""Means by question type and over a whole suite, with intervals: a bootstrap that draws groups, not questions.

It is the bootstrap of `trainer.evaluation.statistics`, for suites: those weigh their types in ways of their own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.statistics import RESAMPLES, Interval, interval, resamples
from trainer.suites.items import SuiteItem
from world2vlm.errors import InvalidInputError

Floats = NDArray[np.float64]
OVERALL = "overall"


class Means:
    """Means over some questions, for any values that they have.

    Args:
        items: the questions.
        tasks: see `Suite.tasks`.
        seed: of the resamples and of the test.

    Raises:
        InvalidInputError: no questions.
    """

    def __init__(self, items: Sequence[SuiteItem], tasks: Mapping[str, str], seed: int) -> None:
        if not items:
            raise InvalidInputError("no questions to score")
        self._types = sorted({item.category for item in items})
        self._tasks = {name: tasks[name] for name in self._types} if tasks else {}
        groups = {group: row for row, group in enumerate(sorted({item.group for item in items}))}
        columns = {name: column for column, name in enumerate(self._types)}
        self._place = [groups[item.group] for item in items], [columns[item.category] for item in items]
        self._shape = len(groups), len(columns)
        self._counts = self._sums(np.ones(len(items)))
        self._seed = seed
        self._weights = resamples(len(groups), seed)

    @property
    def rows(self) -> list[str]:
        """What there is a mean of: the types, the tasks that have several types, and `OVERALL`."""
        joined = {task for task in self._tasks.values() if task not in self._types}
        return [*self._types, *sorted(joined), OVERALL]

    @property
    def sizes(self) -> dict[str, int]:
        """How many questions each row has."""
        return {row: int(self._counts[:, self._columns(row)].sum()) for row in self.rows}

    def means(self, values: Sequence[float] | Floats) -> dict[str, float]:
        """Mean of the values by row."""
        counts = self._counts.sum(axis=0, keepdims=True)
        rows = self._rows(self._sums(values).sum(axis=0, keepdims=True), counts)
        return {row: float(column[0]) for row, column in rows.items()}

    def intervals(self, values: Sequence[float] | Floats) -> dict[str, Interval]:
        """Mean of the values by row, each with its 95% interval (percentile bootstrap over groups)."""
        rows = self._rows(self._weights @ self._sums(values), self._weights @ self._counts)
        return {row: interval(column) for row, column in rows.items()}

    def p_values(self, differences: Sequence[float] | Floats) -> dict[str, float]:
        """Two-sided p of "no difference" by row: a paired randomisation test.

        Were the two students alike, which of them gave which answer would be a coin toss. So the signs of all
        differences of a group are flipped together, at random, and p is how often the mean is then as far from 0.
        """
        signs = np.random.default_rng(self._seed).choice([-1.0, 1.0], (RESAMPLES, self._shape[0]))
        counts = np.repeat(self._counts.sum(axis=0, keepdims=True), RESAMPLES, axis=0)
        flipped = self._rows(signs @ self._sums(differences), counts)
        return {row: _share_beyond(flipped[row], value) for row, value in self.means(differences).items()}

    def _sums(self, values: Sequence[float] | Floats) -> Floats:
        sums: Floats = np.zeros(self._shape)
        np.add.at(sums, self._place, np.asarray(values, dtype=np.float64))
        return sums

    def _columns(self, row: str) -> list[int]:
        """The types that make up a row."""
        if row == OVERALL:
            return list(range(len(self._types)))
        return [column for column, name in enumerate(self._types) if row in (name, self._tasks.get(name))]

    def _rows(self, sums: Floats, counts: Floats) -> dict[str, Floats]:
        """Means by row: float64 (R,) each, of sums and counts by type (R, types); NaN where a resample lacks a type."""
        by_type = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        rows = {row: by_type[:, self._columns(row)].mean(axis=1) for row in self.rows[:-1]}
        if self._tasks:
            rows[OVERALL] = np.mean([rows[task] for task in sorted(set(self._tasks.values()))], axis=0)
        else:
            rows[OVERALL] = sums.sum(axis=1) / counts.sum(axis=1)
        return rows


def _share_beyond(flipped: Floats, seen: float) -> float:
    # What was seen is one of the outcomes, so p is never 0. The slack is for sums in another order.
    return float((1 + np.sum(np.abs(flipped) >= abs(seen) - 1e-12)) / (1 + len(flipped)))
