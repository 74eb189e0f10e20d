"""Fine-tuning in processes of its own: killed hard and continued, and shared by two under torchrun (FSDP2 and DDP)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.finetune_kit import make_qwen25, make_records
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.training import train
from world2vlm.records import read_records, write_records

RUN = [sys.executable, "-m", "tests.finetune_worker"]
SHARED = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    make_qwen25(folder / "model")
    write_records(folder / "tasks.jsonl", make_records(folder, 12))
    return folder


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model": str(root / "model"), "rank": 4, "alpha": 8, "dtype": "float32", "learning_rate": 1e-2, "steps": 5,
        "row_tokens": 160, "accumulation": 2, "snapshot_every": 2, **changes,
    }  # fmt: skip


def start(command: list[str], root: Path, out: Path, stop_after: int = 0, **changes: Any) -> "subprocess.Popen[str]":
    config = settings(root, **changes)
    payload = json.dumps({"root": str(root), "out": str(out), "config": config, "stop_after": stop_after})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, payload], env=environment, stdout=subprocess.PIPE, text=True)


def losses(process: "subprocess.Popen[str]", kill_after: int = 0) -> dict[int, float]:
    found: dict[int, float] = {}
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("loss "):
            _, step, value = line.split()
            found[int(step)] = json.loads(value)
            if int(step) == kill_after:
                process.send_signal(signal.SIGKILL)
    assert process.wait(120) == (-signal.SIGKILL if kill_after else 0)
    return found


def alone(root: Path, out: Path, **changes: Any) -> dict[int, float]:
    """The losses of one process that nobody disturbs: this one."""
    found: dict[int, float] = {}

    def note(step: int, steps: int, figures: dict[str, float]) -> None:
        found[step] = figures["loss"]

    config = FinetuneConfig(**settings(root, **changes))
    train(config, read_records(root / "tasks.jsonl"), root, out, note, prepared=root / "prepared")
    return found


def test_after_kill_9_the_losses_are_the_same(root: Path, tmp_path: Path) -> None:
    killed = losses(start(RUN, root, tmp_path / "killed", stop_after=3), kill_after=3)
    assert not (tmp_path / "killed" / "adapter_model.safetensors").exists()
    rest = alone(root, tmp_path / "killed")
    assert sorted(killed) == [1, 2, 3] and sorted(rest) == [3, 4, 5]
    assert {**killed, **rest} == alone(root, tmp_path / "whole")


@pytest.mark.parametrize(("method", "shard"), [("full", True), ("lora", False)])
def test_two_processes_take_the_same_steps_as_one(root: Path, tmp_path: Path, method: str, shard: bool) -> None:
    """With half the accumulation; one row of the last step is missing for the second process."""
    single = alone(root, tmp_path / "one", method=method)
    command = [*SHARED, "-m", "tests.finetune_worker"]
    shared = losses(start(command, root, tmp_path / "two", method=method, accumulation=1, shard=shard))
    assert set(shared) == set(single)
    assert shared == pytest.approx(single, rel=1e-4)
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    first, second = load_file(tmp_path / "one" / name), load_file(tmp_path / "two" / name)
    assert set(first) == set(second)
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-2, atol=2e-4)
