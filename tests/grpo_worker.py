"""GRPO runs of one of torchrun's processes, one after the other: `python -m tests.grpo_worker` with JSON settings.

Of each run every process writes what it was told, and how it was stopped, to a file of its own. With `kill_after` the
first process kills itself after that step.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist

from tests import gloo_threads
from trainer.finetune import stages
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.grpo.training import train
from trainer.finetune.processes import joined
from world2vlm.errors import World2VLMError
from world2vlm.records import read_records


def main(payload: dict[str, Any]) -> None:
    root = Path(payload["root"])
    with joined() as processes:
        # Or else that none is left in the end would say nothing. A thread has its name by a collective's end.
        dist.barrier()
        assert gloo_threads.are_there() or sys.platform != "linux"
        for run in payload["runs"]:
            result = perform(root, run)
            (root / f"{run['name']}.{processes.rank}.json").write_text(json.dumps(result))


def perform(root: Path, run: dict[str, Any]) -> dict[str, Any]:
    told: list[dict[str, float]] = []

    def note(step: int, _steps: int, figures: dict[str, float]) -> None:
        told.append({"step": step, **figures})
        if step == run.get("kill_after"):
            os.kill(os.getpid(), signal.SIGKILL)

    records = [record for record in read_records(root / "tasks.jsonl") if record.task_type in run["tasks"]]
    tuning = FinetuneConfig(**run["tuning"])
    grpo = FinetuneGrpoConfig(**{**run["grpo"], "tasks": tuple(run["tasks"])})
    out = root / run.get("out", run["name"])
    try:
        if run["base"] is not None:
            train(grpo, tuning, records, root, Path(run["base"]), out, note, prepared=root / "prepared")
        else:
            stages.train(tuning, grpo, records, root, out, note)
    except World2VLMError as error:
        return {"told": told, "error": f"{type(error).__name__}: {error}"}
    return {"told": told, "error": ""}


if __name__ == "__main__":
    gloo_threads.none_are_left_at_exit()
    main(json.loads(sys.argv[-1]))
