"""A fine-tuning run as a program: `python -m tests.finetune_worker` with JSON settings; prints each step's loss.

With `stop_after` it waits after that step, for whoever kills it.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests import gloo_threads
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.training import train
from world2vlm.records import read_records


def main(payload: dict[str, Any]) -> None:
    root = Path(payload["root"])

    def say(step: int, steps: int, figures: dict[str, float]) -> None:
        print("loss", step, json.dumps(figures["loss"]), flush=True)
        if step == payload.get("stop_after"):
            signal.pause()

    train(
        FinetuneConfig(**payload["config"]),
        read_records(root / "tasks.jsonl"),
        root,
        Path(payload["out"]),
        say,
        prepared=root / "prepared",
    )


if __name__ == "__main__":
    gloo_threads.none_are_left_at_exit()
    main(json.loads(sys.argv[-1]))
