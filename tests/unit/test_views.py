"""Views in memory and on disk."""

from pathlib import Path

import numpy as np

from tests.vlm_kit import toy_views
from trainer.views import Views


def same(first: Views, second: Views) -> bool:
    arrays = ("frames", "targets", "scenes")
    equal = (np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays)
    kinds = (getattr(first, name).dtype == getattr(second, name).dtype for name in arrays)
    return all(equal) and all(kinds) and list(map(list, first.objects)) == list(map(list, second.objects))


def test_views_come_back_from_disk(tmp_path: Path) -> None:
    views = toy_views(3)
    views.save(tmp_path / "deep" / "views.safetensors")
    loaded = Views.load(tmp_path / "deep" / "views.safetensors")
    assert same(loaded, views)
    assert not same(loaded, toy_views(3, seed=1))


def test_parts_are_joined_in_order() -> None:
    first, second = toy_views(2, seed=1), toy_views(3, seed=2)
    joined = Views.concatenate(part for part in (first, second))
    assert joined.frames.shape == (10, 32, 32, 3)
    assert np.array_equal(joined.frames[4:], second.frames)
    assert joined.scenes.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2]
    assert joined.objects[4:] == second.objects
