"""What who watches a round gets to see."""

import io
import threading
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from trainer import watching
from trainer.cli import register
from trainer.pieces import NO_TRAINING
from trainer.watching import scores, watch
from world2vlm.errors import NotFoundError
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.steps_shown import Where, open_display
from world2vlm.store import Store

PLAN = RoundPlan("r1", train_scenes=1, calibration_scenes=1, test_scenes=1, scenes_per_shard=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def state(store: Store, monkeypatch: pytest.MonkeyPatch) -> RoundState:
    monkeypatch.setattr(watching, "_POLL_SECONDS", 0.02)
    return make(store, PLAN)


def make(store: Store, plan: RoundPlan) -> RoundState:
    state = RoundState(store, plan.id)
    state.create(plan)
    for index in range(3):
        state.write_shard(index, [], {})
    state.write_step("dataset", {"digest": "d", "records": 3})
    return state


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def work(store: Store, state: RoundState) -> None:
    """Each step says how much there is only once it is under way."""
    for step, name, total in (("distil", "training", 10), ("evaluate", "evaluation", 18)):
        time.sleep(0.15)
        for done in (2, total):
            store.write_json("rounds/r1/progress.json", {"step": step, "done": done, "total": total, "figures": {}})
            time.sleep(0.25)
        state.write_step(name, {})
    state.write_step("promotion", {"promoted": False, "reasons": ["no better"]})


@pytest.mark.parametrize("terminal", [True, False])
def test_totals_are_each_step_s_own(store: Store, state: RoundState, terminal: bool) -> None:
    screen = console(terminal)
    worker = threading.Thread(target=work, args=(store, state))
    worker.start()
    assert watch(store, "r1", screen) == "done"
    worker.join()
    text = shown(screen)
    if terminal:
        assert "2 of 10" in text and "2 of 18" in text and "18 of 18" in text
    else:
        lines = [line.split(" ", 1)[1] for line in text.splitlines()]
        assert lines == ["distil", "distil: 2 of 10", "evaluate", "evaluate: 2 of 18", "promote and swap", "done"]


def test_lines_say_each_tenth_of_a_step_once() -> None:
    screen = console(False)
    with open_display(screen) as display:
        for done in range(0, 1201, 50):
            display.show(Where("distil", done, 1200))
        display.show(Where("evaluate"))
    lines = [line.split(" ", 1)[1] for line in shown(screen).splitlines()]
    assert [line.removeprefix("distil: ") for line in lines] == [
        "distil",
        *(f"{done} of 1200" for done in (150, 250, 400, 500, 600, 750, 850, 1000, 1100)),
        "evaluate",
    ]


def test_lines_leave_out_no_step_that_was_quick_and_none_is_made_up() -> None:
    screen = console(False)
    with open_display(screen) as display:
        for step in ("imagine", "distil", "stopped"):
            display.show(Where(step))  # type: ignore[arg-type]
    assert [line.split(" ", 1)[1] for line in shown(screen).splitlines()] == [
        "imagine and label",
        "dataset",
        "distil",
        "stopped",
    ]


def test_a_round_that_is_over_shows_its_scores_and_where_they_lie(
    store: Store, state: RoundState, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = {"n": 4, "score": 0.5, "low": 0.4, "high": 0.6, "skill": 0.3, "skill_low": 0.2, "skill_high": 0.4}
    sides = {name: {"A1": side, "macro": side} for name in ("before", "after")}
    evaluation = {**sides, "baselines": {"A1": {"chance": 0.1, "constant": 0.2}}, "decision": {"scenes": 5}}
    assert scores(state) == ""
    for name, payload in (("training", {}), ("evaluation", evaluation)):
        state.write_step(name, payload)
    state.write_step("promotion", {"promoted": False, "reasons": ["no better"]})
    monkeypatch.setenv("WORLD2VLM_STORE", str(store.root))
    app = typer.Typer()
    register(app, typer.Typer())
    result = CliRunner().invoke(app, ["rounds", "watch", "r1"], catch_exceptions=False)
    assert "| A1 | 4 | 0.200 constant | 0.500 (0.400 to 0.600) | 0.500 (0.400 to 0.600) |" in result.stdout
    assert f"{store.root}/rounds/r1/evaluation.json" in result.stdout
    assert (Path(str(store.root)) / "rounds/r1/evaluation.json").is_file()
    assert result.stdout.endswith("not promoted: no better\n")


def test_a_job_shows_no_training(store: Store) -> None:
    job = RoundPlan("job", train_scenes=1, calibration_scenes=1, test_scenes=1, scenes_per_shard=1, recipe=NO_TRAINING)
    make(store, job)
    screen = console(True)
    assert watch(store, "job", screen) == "done"
    assert "dataset" in shown(screen) and "distil" not in shown(screen)


def test_a_round_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"no round 'nosuch'; `world2vlm rounds list` shows them"):
        watch(store, "nosuch", console(False))


def test_a_step_that_grows_keeps_its_bar_right() -> None:
    screen = console(True)
    with open_display(screen) as display:
        display.show(Where("distil"))
        display.show(Where("distil", 4, 10))
    assert "4 of 10" in shown(screen)
