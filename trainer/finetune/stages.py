"""Fine-tuning, and GRPO after it where a recipe says so; each continued where a kill left it."""

import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.prepared import digest
from trainer.progress import Progress
from world2vlm.errors import PreconditionError
from world2vlm.files import canonical_json, write_atomically
from world2vlm.records import TaskRecord, to_line

DONE_FILE = "training.json"
"""Within the fine-tuning's folder, once it has ended: what it was made from, its steps, and its running means."""


def tuned_folder(out: Path) -> Path:
    """Where the fine-tuning's result is that GRPO makes `out` of: beside it."""
    return out.with_name(f"{out.name}-sft")


def train(
    finetune: FinetuneConfig,
    grpo: FinetuneGrpoConfig | None,
    records: Sequence[TaskRecord],
    images_root: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
    *,
    replay: Sequence[TaskRecord] = (),
) -> None:
    """Fine-tune a model by name, and let it learn by GRPO where that is asked for.

    Args:
        finetune: the first stage; under torchrun on all devices.
        grpo: the second, under torchrun on all devices, too; None: there is none.
        records: see `trainer.finetune.training.train`, as for `images_root` and `replay`.
        images_root: where the images are.
        out: the new folder; with GRPO, `tuned_folder` keeps what it began with.
        on_progress: called after each step with (step, steps, figures), over both stages.
        replay: records of earlier rounds, for the first stage.

    Raises:
        PreconditionError: the fine-tuning that has ended there had other settings or data.
        InvalidInputError: all weights are to be shared out among several processes, which GRPO does not do.
        World2VLMError: whatever else a stage raises.
    """
    from trainer.finetune.processes import joined
    from trainer.finetune.training import train as tune

    if grpo is None:
        tune(finetune, records, images_root, out, on_progress, replay=replay)
        return
    from trainer.finetune.grpo.beginning import check_held_whole
    from trainer.finetune.grpo.training import train as reinforce

    base = tuned_folder(out)
    run = digest(finetune.to_json(), *(to_line(record) for record in (*records, *replay)))
    with joined() as processes:
        check_held_whole(finetune, processes)
        if not (base / DONE_FILE).exists():
            told = _Told(on_progress, grpo.steps)
            means = tune(finetune, records, images_root, base, told, replay=replay)
            done = canonical_json({"run": run, "steps": told.steps, **means})
            with processes.together():
                if processes.rank == 0:
                    write_atomically(base / DONE_FILE, done.encode())
            # What FSDP2 shared out holds on to itself, and GRPO wants its memory.
            gc.collect()
        before = _steps_done(base / DONE_FILE, run)
        reinforce(
            grpo,
            finetune,
            records,
            images_root,
            base,
            out,
            lambda step, steps, figures: on_progress(before + step, before + steps, figures),
            prepared=base / ".prepared",
        )


def _steps_done(path: Path, run: str) -> int:
    done = json.loads(path.read_bytes())
    if done["run"] != run:
        raise PreconditionError(
            f"{path.parent} is a fine-tuning with other settings or data: remove it, or write to another folder"
        )
    return int(done["steps"])


class _Told:
    """Progress of the first stage, and how many steps it has."""

    def __init__(self, on_progress: Progress, later: int) -> None:
        self._on_progress, self._later = on_progress, later
        self.steps = 0

    def __call__(self, step: int, steps: int, figures: dict[str, float]) -> None:
        self.steps = steps
        self._on_progress(step, steps + self._later, figures)


def is_first() -> bool:
    """Whether this is torchrun's first process, or the only one."""
    return os.environ.get("RANK", "0") == "0"
