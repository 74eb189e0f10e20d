"""Pieces of work: what a message names, and a task does once."""

from dataclasses import dataclass
from typing import Literal

from world2vlm.rounds import RoundPlan, RoundState, Step

Queue = Literal["light", "heavy"]
QUEUES: tuple[Queue, ...] = ("light", "heavy")
HEAVY_STEPS = ("distil", "evaluate")
# A plan with this recipe ends with its dataset: a job that imagines and labels and trains nobody.
NO_TRAINING = "none"


@dataclass(frozen=True)
class Piece:
    """One piece of a round: a whole step, or one shard (`index`) of the step `imagine`."""

    round_id: str
    step: Step
    index: int = 0

    @property
    def key(self) -> str:
        """A name that is the same in messages, leases and attempts."""
        return f"{self.round_id}/{self.step}/{self.index:03d}"

    @property
    def queue(self) -> Queue:
        """Which queue it belongs to."""
        return "heavy" if self.step in HEAVY_STEPS else "light"


def next_step(state: RoundState) -> Step:
    """The round's next step; a round without training is done with its dataset.

    Raises:
        NotFoundError: no such round.
    """
    step = state.status()
    return "done" if step == "distil" and state.plan().recipe == NO_TRAINING else step


def missing_pieces(plan: RoundPlan, state: RoundState) -> list[Piece]:
    """What the round's next step still lacks; nothing where the round is over."""
    step = next_step(state)
    if step in ("done", "stopped"):
        return []
    if step == "imagine":
        return [Piece(plan.id, step, index) for index in state.missing_shards()]
    return [Piece(plan.id, step)]
