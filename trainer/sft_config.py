"""The recipe of a round's training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict

from trainer.optim_config import OptimConfig


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

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    steps: int = 1200
    clips: int = 16
    questions: int = 16
    row_tokens: int = 256
    replay: float = 0.2
    replay_weight: float = 1.7
    tasks: Mapping[str, float] = field(
        default_factory=lambda: {"A1": 1.1, "A2": 1.1, "A3": 1, "A4": 1.75, "D1": 0.75, "D2": 3.25, "D3": 1, "D4": 2.75}
    )
    imagined: int = 4
    exact: float = 0.3
    motion_weight: float = 2.0
    binary_weight: float = 6.0
    pose_weight: float = 1.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(muon_lr=0.01, adam_lr=7e-4))
    snapshot_every: int = 200
    threads: int = 2
    seed: int = 0
