"""The sides: our trainer, and TRL's `SFTTrainer` with its collator for vision-language models (`pip install trl`)."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from PIL import Image

from benchmarks.train.task import Task
from trainer.finetune.adapting import adapt, target_names
from trainer.finetune.config import FinetuneConfig
from trainer.finetune.optimizing import make_optimizer
from trainer.finetune.plan import Size, Step
from trainer.finetune.training import train
from world2vlm.vlm.fullsize.families import find_family
from world2vlm.vlm.fullsize.processing import load_processor

# Steps in which caches are still cold.
_COLD = 3


@dataclass(frozen=True)
class Run:
    """One run: each step's loss and when it ended, and seconds before the first step and in all."""

    losses: Sequence[float]
    ends: Sequence[float]
    begin: float

    @property
    def step_s(self) -> float:
        """Seconds of a step, the median once caches are warm."""
        return median(after - before for before, after in pairwise(self.ends[_COLD:]))

    @property
    def whole_s(self) -> float:
        """Seconds from the loaded data to the end, what is prepared before the first step included."""
        return self.ends[-1] - self.begin


def in_order(batch: int, row: int) -> Any:
    """A planner that takes examples as they come, `batch` a step and `row` a row."""

    def plan(_config: FinetuneConfig, sizes: Sequence[Size], fresh: int, _world: int) -> list[Step]:
        steps = []
        for start in range(0, fresh - batch + 1, batch):
            rows = tuple(
                tuple(range(place, min(place + row, start + batch))) for place in range(start, start + batch, row)
            )
            answers = sum(sizes[index].answer_tokens for index in range(start, start + batch))
            steps.append(Step(rows, float(answers)))
        return steps

    return plan


def run_ours(task: Task, row: int) -> Run:
    """Train with `trainer.finetune`; nothing is prepared beforehand."""
    losses: list[float] = []
    ends: list[float] = []

    def note(_step: int, _steps: int, figures: dict[str, float]) -> None:
        losses.append(figures["loss"])
        ends.append(perf_counter())

    with tempfile.TemporaryDirectory() as out:
        begin = perf_counter()
        train(task.config, task.records, task.images, Path(out), note, planner=in_order(task.batch, row))
    return Run(losses, ends, begin)


def run_trl(task: Task) -> Run:
    """Train with TRL: the same weights, adapters, optimiser, examples and order."""
    from datasets import Dataset  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from transformers import AutoModelForImageTextToText, TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found,import-untyped,unused-ignore,attr-defined]

    config = task.config
    plain = AutoModelForImageTextToText.from_pretrained(config.model)
    model = _with_peft(config, plain) if config.is_adapter else adapt(config, plain, find_family(plain.config))
    losses: list[float] = []
    ends: list[float] = []

    class Note(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if "loss" in more["logs"]:
                losses.append(float(more["logs"]["loss"]))

    rows = [_as_trl(task, index) for index in range(task.steps * task.batch)]
    with tempfile.TemporaryDirectory() as out:
        settings = SFTConfig(
            output_dir=out, per_device_train_batch_size=task.batch, gradient_accumulation_steps=1, num_train_epochs=1,
            learning_rate=config.learning_rate, lr_scheduler_type="constant", max_grad_norm=config.clip,
            logging_steps=1, logging_first_step=True, save_strategy="no", report_to="none", disable_tqdm=True,
            bf16=False, use_cpu=True, gradient_checkpointing=config.gradient_checkpointing, max_length=None,
            train_sampling_strategy="sequential", completion_only_loss=True,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=load_processor(config.model, plain.config.model_type),
            callbacks=[Note()],
            # The same decay on the same weights.
            optimizers=(make_optimizer(config, model), None),
        )
        begin = perf_counter()
        trainer.train()
    return Run(losses, ends, begin)


def _with_peft(config: FinetuneConfig, model: Any) -> Any:
    """The adapters that our side begins with, in PEFT's own layers."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    names = target_names(config, model, find_family(model.config))
    return get_peft_model(model, LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=names))


def _as_trl(task: Task, index: int) -> dict[str, Any]:
    record = task.records[index]
    return {
        "images": [Image.open(task.images / name).convert("RGB") for name in record.images],
        "prompt": [{"role": "user", "content": record.question}],
        "completion": [{"role": "assistant", "content": record.assistant}],
    }
