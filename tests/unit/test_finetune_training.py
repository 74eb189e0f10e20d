"""Runs from beginning to end: resumed to the same losses, adapters on frozen weights, and everything that stops one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import finetune_kit
from tests.finetune_kit import MAKERS, Killed, Models, run, settings
from world2vlm.errors import PreconditionError
from world2vlm.records import TaskRecord

models, images, records = finetune_kit.models, finetune_kit.images, finetune_kit.records


@pytest.mark.parametrize("name", sorted(MAKERS))
@pytest.mark.parametrize("method", ["full", "lora"])
def test_every_family_learns(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path, name: str, method: Any
) -> None:
    rate = 1e-2 if method == "full" else 5e-2
    losses = run(settings(models(name), method=method, steps=9, learning_rate=rate), records, images, tmp_path)
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("method", ["full", "dora"])
def test_a_killed_run_continues_to_the_same_losses(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path, method: Any
) -> None:
    """With dropout, replay and weights, killed between two snapshots."""
    config = settings(models("qwen2_5_vl"), method=method, dropout=0.3, replay=0.25, lambda_inverse=0.5)
    whole = run(config, records, images, tmp_path / "whole", replay=records[:3])
    with pytest.raises(Killed):
        run(config, records, images, tmp_path / "killed", 3, replay=records[:3])
    rest = run(config, records, images, tmp_path / "killed", replay=records[:3])
    assert rest == whole[2:]
    weights = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    first, second = (load_file(tmp_path / name / weights) for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "killed" / "snapshot.safetensors").exists()


def test_a_snapshot_of_another_run_is_refused(
    models: Models, records: list[TaskRecord], images: Path, tmp_path: Path
) -> None:
    config = settings(models("llava"))
    with pytest.raises(Killed):
        run(config, records, images, tmp_path, 3)
    with pytest.raises(PreconditionError, match="other settings or data"):
        run(replace(config, learning_rate=1e-3), records, images, tmp_path)


def test_later_epochs_prepare_nothing(models: Models, records: list[TaskRecord], images: Path, tmp_path: Path) -> None:
    config = settings(models("qwen2_5_vl"), steps=None, epochs=2)
    run(config, records, images, tmp_path / "first", prepared=tmp_path / "prepared")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").rglob("*.safetensors")}
    # Seven distinct questions and three pictures.
    assert len(times) == 10
    run(config, records, images, tmp_path / "second", prepared=tmp_path / "prepared")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared").rglob("*.safetensors")}
