"""Supervised fine-tuning of a student on a dataset's task records, with replay of what it could do before.

Deterministic in its config and its data: the batch of a step depends on the seed and the step alone, and snapshots hold
the optimisers' state, so a killed run continues to the same weights.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.clip_source import ClipBatch, ClipSource
from trainer.optim import StudentOptimizer
from trainer.packing import PackedStudent
from trainer.pose import PoseHead
from trainer.progress import Progress, running_means
from trainer.sft_config import SftConfig
from trainer.snapshots import load_snapshot, remove_snapshot, save_snapshot
from world2vlm.records import TaskRecord
from world2vlm.vlm import StudentModel

# Of the running means.
_MEMORY = 0.98


def train(
    config: SftConfig,
    base: Path,
    records: Sequence[TaskRecord],
    bundles_root: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
) -> dict[str, float]:
    """Fine-tune the checkpoint at `base` and write the new one to `out`.

    Args:
        config: the recipe.
        base: folder of the parent checkpoint.
        records: the dataset's training records; image paths are relative to `bundles_root`.
        bundles_root: where the bundles are.
        out: folder of the new checkpoint; a snapshot in it is continued.
        on_progress: called after each step with (step, steps, running means).

    Returns:
        The running means at the end.
    """
    torch.set_num_threads(config.threads)
    student = StudentModel.load(base)
    packed = PackedStudent(student, exact=config.exact)
    head = PoseHead(student.model.lm_head.in_features, config.seed)
    clips = ClipSource(config, records, bundles_root, student.processor)
    optimizer = StudentOptimizer([student.model, head], config.optim, config.steps)
    done, means = load_snapshot(out, [student.model, head], optimizer)
    student.model.train()
    for step in range(done, config.steps):
        loss, pose_loss = _losses(packed, head, clips.batch(step))
        optimizer.step(loss + config.pose_weight * pose_loss)
        means = running_means(means, {"loss": loss.item(), "pose_loss": pose_loss.item()}, _MEMORY)
        on_progress(step + 1, config.steps, means)
        if (step + 1) % config.snapshot_every == 0:
            save_snapshot(out, [student.model, head], optimizer, step + 1, means)
    student.model.train(False)
    student.save(out)
    remove_snapshot(out)
    return means


def _losses(packed: PackedStudent, head: PoseHead, batch: ClipBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the answers, and of the pose as the vision tower sees it."""
    seen = packed.see(batch.frames)
    return packed.loss(packed.pack(batch.questions), seen), head.loss(seen[0], batch.poses)
