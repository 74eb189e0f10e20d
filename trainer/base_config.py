"""Settings of pre-training a base student; apart from its code, so that reading a recipe needs no torch."""

from dataclasses import dataclass, field

from trainer.optim_config import OptimConfig
from trainer.ranges import AtLeastOne, NotNegative, Share
from world2vlm.errors import InvalidInputError
from world2vlm.student_config import StudentConfig


@dataclass(frozen=True)
class Rooms:
    """Procedural rooms `first_seed` to `first_seed + rooms - 1`, each seen from its first `anchors` anchors."""

    first_seed: NotNegative
    rooms: AtLeastOne
    anchors: AtLeastOne

    def overlap(self, other: "Rooms") -> bool:
        """Whether a room is in both."""
        first, second = sorted((self, other), key=lambda rooms: rooms.first_seed)
        return second.first_seed < first.first_seed + first.rooms


@dataclass(frozen=True)
class BaseConfig:
    """Settings of `trainer.base_student`; the defaults are the recipe `base-student`.

    Attributes:
        steps: optimiser steps.
        dense_only_steps: of these, the first ones, that teach the vision tower alone.
        clips: clips a step.
        questions: questions a clip.
        pair_share: share of clips that are two views.
        student: its sizes.
        training: the rooms to learn from.
        held_out: the rooms to probe it on; none of the former.
        probes: questions of each kind to probe it with.
        seed: of the weights and of the questions.

    Raises:
        InvalidInputError: a room is in both.
    """

    steps: AtLeastOne = 8_000
    dense_only_steps: NotNegative = 300
    clips: AtLeastOne = 16
    questions: AtLeastOne = 6
    pair_share: Share = 0.5
    student: StudentConfig = field(default_factory=StudentConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(cooldown=0.4))
    training: Rooms = Rooms(1_000_000, 9_000, 4)
    held_out: Rooms = Rooms(2_000_000, 200, 3)
    probes: AtLeastOne = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.training.overlap(self.held_out):
            raise InvalidInputError("the rooms to learn from and those to probe on overlap: choose another first seed")
