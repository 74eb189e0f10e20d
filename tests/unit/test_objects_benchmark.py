"""Telling two objects of a kind apart, measured on rendered rooms as the benchmark does, at a small size."""

import numpy as np

from benchmarks import objects


def test_reprojection_tells_twins_apart_where_their_name_does_not() -> None:
    walks = objects.find_walks(12, 2)
    right = {side: objects.judge(walks, side) for side in (objects.by_label, objects.by_reprojection)}
    shares = {side: np.mean([mark for _, mark in marks]) for side, marks in right.items()}
    assert len(right[objects.by_label]) == len(right[objects.by_reprojection]) >= 15
    assert shares[objects.by_reprojection] > 0.85
    assert shares[objects.by_reprojection] > shares[objects.by_label]


def test_the_interval_is_around_the_share() -> None:
    groups, marks = np.repeat(np.arange(10), 4), np.tile([1.0, 1.0, 1.0, 0.0], 10)
    marks[:4] = 0
    found = objects.share(groups, marks)
    assert found.value == 27 / 40
    assert 0.4 < found.low < found.value < found.high <= 0.75
