"""The settings of GRPO."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from trainer.optim_config import OptimConfig
from trainer.ranges import AtLeastOne, NotNegative, Share, TaskCode, Weight

Reward = Literal["strict", "world2vlm"]


@dataclass(frozen=True)
class GroupConfig:
    """Settings of GRPO, whatever the model is.

    Attributes:
        steps: batches of groups.
        tasks: the tasks whose questions are asked; empty: all.
        prompts: questions a step, equally many of each task.
        group: answers to each question.
        pool: questions to draw from in all, equally many of each task; 0: all.
        reward: our strict score (`world2vlm.scoring`) or World2VLM's published reward (`world2vlm.rewards`).
        standardise: divide advantages by their group's standard deviation (`trainer.grpo.objective.advantages`).
        updates: optimiser steps on each batch; from the second on the clips matter.
        clip_low, clip_high: how far a choice's probability ratio may fall and rise before it stops counting. Equal in
            GRPO; DAPO's higher upper clip lets unlikely answers grow.
        kl_weight: of the KL divergence from the student as it began.
        redraws: how often a question all of whose answers are equally good is replaced by another one of its task
            (DAPO's dynamic sampling); 0: never.
        max_kl: nats an answer; the run stops where the mean over `window` steps is above.
        max_length: times the true answers' tokens, the same way.
        max_repetition: share of an answer's pairs of tokens that the answer held before, the same way.
        window: steps.
        snapshot_every: steps between snapshots.
        seed: of questions and answers.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    steps: AtLeastOne = 500
    tasks: tuple[TaskCode, ...] = ()
    prompts: AtLeastOne = 16
    group: Annotated[int, Field(ge=2)] = 8
    pool: NotNegative = 0
    reward: Reward = "strict"
    standardise: bool = False
    updates: AtLeastOne = 1
    clip_low: Share = 0.2
    clip_high: Weight = 0.2
    kl_weight: Weight = 0.01
    redraws: NotNegative = 0
    max_kl: Weight = 2.0
    max_length: Weight = 1.5
    max_repetition: Share = 0.3
    window: AtLeastOne = 20
    snapshot_every: AtLeastOne = 50
    seed: int = 0


@dataclass(frozen=True)
class GrpoConfig(GroupConfig):
    """Settings of GRPO on the built-in student, besides those of `GroupConfig`.

    Attributes:
        freeze_vision: leave the vision tower as it is, as World2VLM does.
        anchor: clips a step that are learned from as in SFT, tasks and replayed perception alike, so that the policy
            gradient costs nothing that was known (InstructGPT's pretraining mix, arXiv 2203.02155), the tasks that
            are not asked about included; 0: none.
        anchor_weight: of their loss.
        threads: torch threads.
    """

    freeze_vision: bool = True
    anchor: NotNegative = 8
    anchor_weight: Weight = 0.5
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon_lr=0.001, adam_lr=7e-5, warmup=10))
    threads: AtLeastOne = 2
