"""Weights that are no numbers are found wherever they are, without a copy of the others."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from world2vlm.vlm.finite import all_finite

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [(0, 0), (511, 300), (999, 999)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_in_a_million_is_found(value: float, place: tuple[int, int], dtype: torch.dtype) -> None:
    weight = torch.zeros(1000, 1000, dtype=dtype)
    assert all_finite([torch.ones(3), weight])
    weight[place] = value
    assert not all_finite([torch.ones(3), weight])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_numbers_are_numbers(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    assert all_finite([torch.full((100,), most, dtype=dtype), torch.tensor([-most, most], dtype=dtype)])


def test_weights_without_values_or_of_integers_are_finite() -> None:
    assert all_finite([torch.zeros(0, 4), torch.zeros(3, dtype=torch.int8), torch.tensor(True)])
    assert all_finite([])


def test_nothing_is_copied() -> None:
    weight = torch.zeros(1000, 1000)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        assert all_finite([weight])
    assert sum(max(0, event.cpu_memory_usage) for event in profiled.events()) < 10_000
