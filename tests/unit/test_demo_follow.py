"""Following a round by its files."""

import io
import itertools
from pathlib import Path

import pytest
from rich.console import Console

from world2vlm.demo.follow import follow
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.steps_shown import Where, look, open_display
from world2vlm.store import Store

PLAN = RoundPlan("r1", train_scenes=2, calibration_scenes=1, test_scenes=1, scenes_per_shard=1, steps=10)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def state(store: Store) -> RoundState:
    state = RoundState(store, PLAN.id)
    state.create(PLAN)
    return state


def test_every_step_is_seen_with_its_progress(store: Store, state: RoundState) -> None:
    assert look(store, state, state.status()) == Where("imagine", 0, 4)
    state.write_shard(1, [], {})
    assert look(store, state, state.status()) == Where("imagine", 1, 4)
    for index in (0, 2, 3):
        state.write_shard(index, [], {})
    assert look(store, state, state.status()) == Where("dataset")
    state.write_step("dataset", {})
    assert look(store, state, state.status()) == Where("distil")
    store.write_json("rounds/r1/progress.json", {"step": "distil", "done": 4, "total": 10})
    assert look(store, state, state.status()) == Where("distil", 4, 10)
    state.write_step("training", {})
    # The file is still the step's before.
    assert look(store, state, state.status()) == Where("evaluate")
    state.write_step("evaluation", {})
    assert look(store, state, state.status()) == Where("promote")
    state.write_step("promotion", {})
    assert look(store, state, state.status()).is_over


def test_following_ends_with_the_round(store: Store, state: RoundState) -> None:
    places = follow(store, state)
    assert next(places).step == "imagine"
    state.stop("no reason")
    assert [where.step for where in places] == ["stopped"]


@pytest.mark.parametrize("terminal", [True, False])
def test_displays_show_each_step(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with open_display(console) as display:
        for step, done in itertools.product(("imagine", "dataset", "distil", "evaluate", "promote"), (0, 2, 3)):
            display.show(Where(step, done, 3))  # type: ignore[arg-type]
        display.show(Where("done"))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for name in ("imagine and label", "dataset", "distil", "evaluate", "promote and swap"):
        assert name in shown
    assert ("3 of 3" in shown) is terminal
