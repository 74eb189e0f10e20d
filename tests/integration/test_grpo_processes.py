"""GRPO of a fine-tuned model by two processes under torchrun: the steps of one, continued after a kill, and stopped."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import grpo_worker
from tests.finetune_kit import make_qwen25, make_records, run, settings
from trainer.finetune.config import FinetuneConfig
from world2vlm.records import TaskRecord, write_records
from world2vlm.tasks import TASKS

SHARED = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Three questions, which two processes cannot share out evenly.
GRPO = {
    "steps": 4, "prompts": 3, "group": 3, "updates": 2, "redraws": 1, "reward": "world2vlm", "learning_rate": 3e-3,
    "snapshot_every": 2,
}  # fmt: skip
# One question, which the first process asks; the second has none, and hears of what the first one finds.
BROKEN = {**GRPO, "prompts": 1, "learning_rate": 1e30, "max_kl": 1e30, "kl_weight": 1.0, "snapshot_every": 1}
GAMED = {**GRPO, "steps": 40, "window": 2, "max_kl": 0.01, "learning_rate": 3e-2}
FIGURES = {"loss", "kl", "gradient", "rate", "reward", "telling", "length", "repetition", "step"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grpo")
    make_qwen25(folder / "model")
    records = [record for record in make_records(folder, 12) if record.task_type in TASKS]
    write_records(folder / "tasks.jsonl", [well_spelt(record) for record in records])
    run(FinetuneConfig(**tuning(folder)), records, folder, folder / "base", prepared=folder / "prepared")
    return folder


def well_spelt(record: TaskRecord) -> TaskRecord:
    return replace(record, assistant="true") if record.task_type == "A4" else record


def tuning(root: Path, **changes: Any) -> dict[str, Any]:
    return settings(root / "model", **{"row_tokens": 400, "steps": 2, **changes}).to_json()


def described(root: Path, name: str, grpo: dict[str, Any] = GRPO, **more: Any) -> dict[str, Any]:
    """A run for the worker, from the fine-tuning's adapter; without a base it begins with a fine-tuning of its own."""
    base: dict[str, Any] = {
        "name": name, "tasks": ("A2", "D2"), "grpo": grpo, "tuning": tuning(root), "base": str(root / "base"),
    }  # fmt: skip
    return {**base, **more}


def start(root: Path, *runs: dict[str, Any]) -> tuple[int, str]:
    """The exit status of torchrun, and what it and its processes said."""
    command = [*SHARED, "-m", "tests.grpo_worker", json.dumps({"root": str(root), "runs": runs})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            # So that it ends its processes, too.
            process.terminate()
            raise
        return process.returncode, said


def alone(root: Path, run: dict[str, Any]) -> list[dict[str, float]]:
    """What one process is told: this one."""
    result = grpo_worker.perform(root, run)
    assert not result["error"]
    told: list[dict[str, float]] = result["told"]
    return told


class Shared:
    """What two processes made of several runs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def result(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        first, second = (json.loads((self.root / f"{name}.{rank}.json").read_bytes()) for rank in range(2))
        return first, second

    def told(self, name: str) -> list[dict[str, float]]:
        """What the first process was told; the second is told nothing."""
        first, second = self.result(name)
        assert (first["error"], second["error"], second["told"]) == ("", "", [])
        told: list[dict[str, float]] = first["told"]
        return told


@pytest.fixture(scope="module")
def shared(root: Path) -> Shared:
    status, said = start(root, described(root, "killed", kill_after=3))
    assert status and "SIGKILL" in said
    assert not (root / "killed" / "adapter_model.safetensors").exists()
    shutil.copytree(root / "killed", root / "elsewhere")
    full = tuning(root, method="full", learning_rate=1e-4)
    whole = {"tuning": {**full, "shard": False}, "base": str(root / "model")}
    status, said = start(
        root,
        described(root, "killed"),
        described(root, "same"),
        described(root, "gamed", GAMED),
        described(root, "nan", BROKEN),
        described(root, "broken", {**BROKEN, "updates": 1}),
        described(root, "short", {**GRPO, "prompts": 2}, tuning=tuning(root, row_tokens=80), tasks=("A1", "A2")),
        described(root, "full", {**GRPO, "steps": 2}, **whole),
        described(root, "refused", tuning=full, base=None),
        described(root, "both", {**GRPO, "steps": 2}, base=None),
    )
    assert status == 0, said
    return Shared(root)


def same_weights(first: Path, second: Path, tolerance: float = 0.0) -> None:
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=50 * tolerance, atol=tolerance)


def alike(told: Sequence[dict[str, float]], expected: Sequence[dict[str, float]]) -> None:
    assert len(told) == len(expected)
    for found, single in zip(told, expected, strict=True):
        assert set(found) == FIGURES
        assert found == pytest.approx(single, rel=1e-3, abs=1e-6)


def test_two_processes_take_the_same_steps_as_one(root: Path, shared: Shared) -> None:
    """Some of them are steps in which one process has no group that tells anything."""
    single = alone(root, described(root, "single"))
    alike(shared.told("same"), single)
    same_weights(root / "single" / "adapter_model.safetensors", root / "same" / "adapter_model.safetensors", 2e-4)
    shares = {round(3 * figures["telling"]) for figures in single}
    assert {1} < shares, "with one group of three one process has none"


def test_after_a_kill_the_steps_are_the_same_and_on_another_number_of_processes_nearly(
    root: Path, shared: Shared
) -> None:
    whole = shared.told("same")
    assert [figures["step"] for figures in shared.told("killed")] == [3, 4]
    assert shared.told("killed") == whole[2:]
    same_weights(root / "same" / "adapter_model.safetensors", root / "killed" / "adapter_model.safetensors")
    alike(alone(root, described(root, "elsewhere")), whole[2:])


def test_a_gamed_reward_stops_both(root: Path, shared: Shared) -> None:
    first, second = shared.result("gamed")
    assert first["error"] == second["error"]
    assert first["error"].startswith("GateRejectedError: GRPO was stopped at step") and "above 0.01" in first["error"]
    assert second["told"] == [] and 2 <= len(first["told"]) < 40


def test_a_loss_that_is_not_finite_stops_both_whosever_it_is(root: Path, shared: Shared) -> None:
    first, second = shared.result("nan")
    assert first["error"] == second["error"]
    assert first["error"].startswith("DivergedError: GRPO step 1 of 4: the loss is nan")


def test_a_model_that_is_broken_stops_both_and_the_snapshot_stays(root: Path, shared: Shared) -> None:
    first, second = shared.result("broken")
    said = "the probabilities of the answers drawn at step 2 are not finite"
    assert first["error"].startswith(f"DivergedError: {said}")
    assert second["error"].startswith(f"PreconditionError: the process of rank 0 has failed: {said}")
    assert len(first["told"]) == 1
    assert (root / "broken" / "snapshot.safetensors").exists()


def test_one_that_fails_stops_both_with_its_reason(root: Path, shared: Shared) -> None:
    """The second process asks A2, whose pictures and answers take more tokens than a row has here."""
    first, second = shared.result("short")
    assert second["error"].startswith("InvalidInputError: an answer with its question has")
    assert first["error"] == f"PreconditionError: the process of rank 1 has failed: {second['error'].split(': ', 1)[1]}"


def test_all_weights_are_learned_where_each_process_holds_them(root: Path, shared: Shared) -> None:
    full = tuning(root, method="full", learning_rate=1e-4)
    single = alone(root, described(root, "one-full", {**GRPO, "steps": 2}, tuning=full, base=str(root / "model")))
    alike(shared.told("full"), single)
    same_weights(root / "one-full" / "model.safetensors", root / "full" / "model.safetensors", 2e-4)


def test_shared_out_they_are_refused_before_anything_is_trained(root: Path, shared: Shared) -> None:
    for result in shared.result("refused"):
        assert result["told"] == [] and "InvalidInputError: GRPO does not share out all weights" in result["error"]
    assert not (root / "refused-sft").exists()


def test_the_fine_tuning_and_grpo_follow_each_other_in_the_same_processes(root: Path, shared: Shared) -> None:
    assert [figures["step"] for figures in shared.told("both")] == [1, 2, 3, 4]
    for name in ("both-sft", "both"):
        assert (root / name / "adapter_model.safetensors").exists()
