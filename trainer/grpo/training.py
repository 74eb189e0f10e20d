"""The GRPO run: draw groups, learn from them, hold on to what was known, watch that the reward isn't gamed.

Deterministic in its config, its data and the student that it begins with, and resumable as SFT is (`trainer.sft`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from trainer.clip_source import ClipBatch, ClipSource
from trainer.grpo.config import GrpoConfig
from trainer.grpo.guard import Guard
from trainer.grpo.objective import advantages, choice_losses, mean_over_answers
from trainer.grpo.policy import GroupBatch, Policy
from trainer.grpo.prompts import Prompts
from trainer.grpo.rollouts import Group, Rollouts, describe, draw_groups, tally
from trainer.optim import StudentOptimizer
from trainer.packing import PackedStudent
from trainer.progress import Progress, running_means
from trainer.sft_config import SftConfig
from trainer.snapshots import load_snapshot, remove_snapshot, save_snapshot
from world2vlm.records import TaskRecord
from world2vlm.vlm import StudentModel

# Of the running means, for people to look at.
_MEMORY = 0.9


def train(
    config: GrpoConfig,
    base: Path,
    records: Sequence[TaskRecord],
    bundles_root: Path,
    out: Path,
    on_progress: Progress = lambda step, steps, figures: None,
) -> dict[str, float]:
    """Let the checkpoint at `base` learn from its own answers, and write the new one to `out`.

    Args:
        config: the recipe.
        base: folder of a checkpoint that knows the tasks; also what the KL divergence is taken from.
        records: the dataset's training records; image paths are relative to `bundles_root`.
        bundles_root: where the bundles are.
        out: folder of the new checkpoint; a snapshot in it is continued.
        on_progress: called after each step with (step, steps, running means).

    Returns:
        The running means at the end: `reward`, `kl` (nats an answer), `length` (times the true answers'), `repetition`,
        `telling` (share of groups that something can be learned from), `loss`.

    Raises:
        InvalidInputError: nothing to train on.
        GateRejectedError: the reward is being gamed (`trainer.grpo.guard`).
        DivergedError: the loss is not finite; the last snapshot stays.
    """
    torch.set_num_threads(config.threads)
    student = StudentModel.load(base)
    prompts = Prompts(config, records)
    source = ClipSource(_anchor(config), records, bundles_root, student.processor)
    rollouts = Rollouts(student, source.views, student.processor.encode_question, config.group, config.reward)
    learner = Learner(config, student, StudentModel.load(base))
    guard = Guard(config)
    done, means = load_snapshot(out, [student.model], learner.optimizer)
    for step in range(done, config.steps):
        groups = draw_groups(config, prompts, rollouts, step, range(config.prompts))
        anchor = source.batch(step) if config.anchor else None
        figures = {**describe(tally(groups)), **learner.learn(groups, anchor)}
        means = running_means(means, figures, _MEMORY)
        on_progress(step + 1, config.steps, means)
        guard.check(step + 1, figures)
        if (step + 1) % config.snapshot_every == 0:
            save_snapshot(out, [student.model], learner.optimizer, step + 1, means)
    student.save(out)
    remove_snapshot(out)
    return means


@dataclass(frozen=True)
class _Lesson:
    """Groups laid out, with what each of their C choices is held against: float32 (C,) each; no `old`: as it is now."""

    batch: GroupBatch
    advantage: torch.Tensor
    reference: torch.Tensor
    old: torch.Tensor | None


class Learner:
    """The student that learns, the one it must not stray from, and the optimiser."""

    def __init__(self, config: GrpoConfig, student: StudentModel, reference: StudentModel) -> None:
        self._config = config
        student.model.model.visual.requires_grad_(not config.freeze_vision)
        self._policy, self._reference = Policy(student), Policy(reference)
        self._packed = PackedStudent(student, exact=SftConfig.exact)
        self.optimizer = StudentOptimizer([student.model], config.optim, config.steps * config.updates)

    def learn(self, groups: Sequence[Group], anchor: ClipBatch | None) -> dict[str, float]:
        """Take a step's updates. Returns `loss` and `kl` of the last one."""
        telling = [group for group in groups if group.is_telling]
        lesson = self._lesson(telling) if telling else None
        figures = {"loss": 0.0, "kl": 0.0}
        for _ in range(self._config.updates):
            losses = []
            if lesson is not None:
                loss, figures["kl"] = self._policy_loss(lesson)
                losses.append(loss)
            if anchor is not None:
                held = self._packed.loss(self._packed.pack(anchor.questions), self._packed.see(anchor.frames))
                losses.append(self._config.anchor_weight * held)
            if losses:
                loss = torch.stack(losses).sum()
                self.optimizer.step(loss)
                figures["loss"] = loss.item()
        return figures

    def _lesson(self, groups: Sequence[Group]) -> _Lesson:
        batch = self._policy.lay_out(groups)
        rewards = np.stack([group.rewards for group in groups])
        better = advantages(rewards, standardise=self._config.standardise)
        with torch.no_grad():
            reference = self._reference.log_probabilities(batch)
            old = self._policy.log_probabilities(batch) if self._config.updates > 1 else None
        return _Lesson(batch, torch.from_numpy(better.ravel()).float()[batch.answer], reference, old)

    def _policy_loss(self, lesson: _Lesson) -> tuple[torch.Tensor, float]:
        """What is to be made small, and the KL divergence of an answer."""
        batch, new = lesson.batch, self._policy.log_probabilities(lesson.batch)
        losses, drifts = choice_losses(self._config, new, lesson.old, lesson.advantage, lesson.reference)
        return mean_over_answers(losses, batch.answer, batch.answers), drifts.sum().item() / batch.answers


def _anchor(config: GrpoConfig) -> SftConfig:
    """What draws the clips that are learned from as in SFT."""
    return SftConfig(clips=config.anchor, seed=config.seed)
