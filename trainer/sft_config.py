"""The recipe of a round's training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainer.optim_config import OptimConfig
from trainer.ranges import AtLeastOne, NotNegative, Share, TaskCode, Weight


@dataclass(frozen=True)
class SftConfig:
    """Settings of supervised fine-tuning; the defaults are the recipe `demo`.

    Attributes:
        steps: optimiser steps.
        clips: clips a step; each is one pair of views (or one view twice).
        questions: questions a clip at most.
        row_tokens: tokens of a clip and its questions at most. Rows are filled up to here, so little is padding.
        replay: share of clips that replay perception questions.
        replay_weight: what the weights of their tokens are multiplied by.
        tasks: chance that a clip is drawn for a task; its other questions come from the same views.
        imagined: on a clip of one view alone (D2), how many D1 questions are asked too, so that the box must be worked
            out and not looked up: one yes or no says little about where an object goes.
        exact: share of a coordinate's target that goes to the very number. Without it a 0 at the image's edge is
            said as 1, and "[1" goes on as "[1 meters".
        motion_weight: loss weight of a token of a motion or a sequence, relative to a box's.
        binary_weight: the same for yes/no answers: one telling token against a box's four.
        pose_weight: weight of the pose loss on the vision tower (`trainer.pose`).
        snapshot_every: steps between snapshots.
        threads: torch threads.
    """

    steps: AtLeastOne = 1200
    clips: NotNegative = 16
    questions: AtLeastOne = 16
    row_tokens: AtLeastOne = 256
    replay: Share = 0.2
    replay_weight: Weight = 1.7
    tasks: Mapping[TaskCode, Weight] = field(
        default_factory=lambda: {"A1": 1.1, "A2": 1.1, "A3": 1, "A4": 1.75, "D1": 0.75, "D2": 3.25, "D3": 1, "D4": 2.75}
    )
    imagined: NotNegative = 4
    exact: Share = 0.3
    motion_weight: Weight = 2.0
    binary_weight: Weight = 6.0
    pose_weight: Weight = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon_lr=0.01, adam_lr=7e-4))
    snapshot_every: AtLeastOne = 200
    threads: AtLeastOne = 2
    seed: int = 0
