"""Curves reach TensorBoard's own reader; a tracker that is not there is said at once."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.tracking import Tracking
from world2vlm.errors import InvalidInputError


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def log(tracking: Tracking, steps: range, config: Mapping[str, object]) -> None:
    told: list[int] = []
    with tracking.run("round-1", config, lambda step, _steps, _figures: told.append(step)) as tell:
        for step in steps:
            tell(step, 40, {"loss": 1 / step, "kl": 0.0})
    assert told == list(steps)


def test_curves_reach_tensorboard_and_go_on_after_a_kill(tmp_path: Path) -> None:
    tracking = Tracking(("tensorboard",), tmp_path)
    config = {"name": "demo", "sft": {"steps": 40, "tasks": {"A1": 1.5}, "names": ["a"]}, "tasks": ()}
    log(tracking, range(1, 31), config)
    log(tracking, range(31, 41), config)
    steps, losses = zip(*curve(tmp_path / "round-1", "loss"), strict=True)
    assert steps == (10, 20, 30, 40)
    assert losses == pytest.approx([1 / step for step in steps])


def test_no_tracker_writes_nothing(tmp_path: Path) -> None:
    log(Tracking((), tmp_path), range(1, 21), {})
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.tracking.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match="pip install mlflow"):
        log(Tracking(("mlflow",), tmp_path), range(1, 2), {})
