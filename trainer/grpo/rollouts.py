"""Groups of answers: the student draws several to each question, and each gets its reward."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.grpo.config import GroupConfig, Reward
from trainer.grpo.guard import repetition
from trainer.grpo.prompts import Prompts
from world2vlm import rewards, scoring
from world2vlm.errors import DivergedError
from world2vlm.records import TaskRecord
from world2vlm.vlm.answering import Student
from world2vlm.vlm.decoding import Decoded

Views = Callable[[TaskRecord], Sequence[Any]]
"""A record's frames as the student reads them (`Student.to_frame`)."""
Spell = Callable[[str], Sequence[int]]
"""The tokens of an answer, without the end token."""

_REWARDS = {"strict": scoring.score, "world2vlm": rewards.reward}


@dataclass(frozen=True)
class Group:
    """One question and G answers to it.

    Attributes:
        record: the question.
        clip: what is seen, see `world2vlm.vlm.decoding.Job`.
        prompt: ids after the clip: the question and the beginning of the answer's turn.
        answers: G times the ids of an answer, the end token left out.
        truth: ids of the true answer.
        rewards: float64 (G,).
        probabilities: float64 (G,), what each answer was drawn with.
    """

    record: TaskRecord
    clip: Any
    prompt: Sequence[int]
    answers: Sequence[tuple[int, ...]]
    truth: Sequence[int]
    rewards: NDArray[np.float64]
    probabilities: NDArray[np.float64]

    @property
    def is_telling(self) -> bool:
        """Whether some answers are better than others; nothing can be learned otherwise."""
        return bool(np.ptp(self.rewards) > 0)


class Rollouts:
    """Draws groups from a student as it is at the time.

    Args:
        student: the one that learns.
        views: reads a record's frames.
        spell: as the student is trained to answer.
        size: answers in a group.
        reward: which.
    """

    def __init__(self, student: Student, views: Views, spell: Spell, size: int, reward: Reward) -> None:
        self._student, self._views, self._spell, self._size = student, views, spell, size
        self._reward = _REWARDS[reward]

    def draw(self, records: Sequence[TaskRecord], seeds: Sequence[int]) -> list[Group]:
        """A group for each record, drawn with the record's own seed."""
        student, size = self._student, self._size
        inputs = [student.frame_inputs(self._views(record), record.question, record.task_type) for record in records]
        jobs = [
            replace(given.job(given.answer_tokens), seed=seed * size + number)
            for given, record, seed in zip(inputs, records, seeds, strict=True)
            for number in range(size)
        ]
        answers = student.decode(jobs)
        return [
            self._group(record, given.clip, given.tokens, answers[start : start + size])
            for record, given, start in zip(records, inputs, range(0, len(answers), size), strict=True)
        ]

    def _group(self, record: TaskRecord, clip: Any, prompt: Sequence[int], decoded: Sequence[Decoded]) -> Group:
        answers = [each.ids for each in decoded]
        texts = [self._student.text(ids) for ids in answers]
        found = [self._reward(record.task_type, record.assistant, text)["overall"] for text in texts]
        truth = self._spell(record.assistant)
        probabilities = np.array([each.probabilities[0] for each in decoded])
        return Group(record, clip, prompt, answers, truth, np.array(found, dtype=np.float64), probabilities)


def draw_groups(
    config: GroupConfig, prompts: Prompts, rollouts: Rollouts, step: int, wanted: Sequence[int]
) -> list[Group]:
    """A step's groups; questions that tell nothing are replaced while redraws are left.

    Args:
        config: seed and redraws.
        prompts: what is asked.
        rollouts: what draws.
        step: from 0.
        wanted: the step's slots whose groups are drawn; the other ones change nothing about them.

    Raises:
        DivergedError: the student is broken: its answers have no probabilities.
    """
    groups: dict[int, Group] = {}
    for attempt in range(config.redraws + 1):
        slots = [slot for slot in wanted if slot not in groups or not groups[slot].is_telling]
        if not slots:
            break
        seeds = [int(np.random.SeedSequence((config.seed, step, slot, attempt)).generate_state(1)[0]) for slot in slots]
        drawn = rollouts.draw([prompts.draw(step, slot, attempt) for slot in slots], seeds)
        if not all(np.isfinite(group.probabilities).all() for group in drawn):
            raise DivergedError(
                f"the probabilities of the answers drawn at step {step + 1} are not finite: lower the learning rate; "
                "training can go on from its last snapshot"
            )
        groups.update(zip(slots, drawn, strict=True))
    return [groups[slot] for slot in wanted]


def tally(groups: Sequence[Group]) -> dict[str, float]:
    """What `describe` takes: sums over groups, so that those of several processes can be added."""
    answers = [(answer, group) for group in groups for answer in group.answers]
    return {
        "groups": len(groups),
        "telling": sum(group.is_telling for group in groups),
        "answers": len(answers),
        "reward": sum(float(group.rewards.sum()) for group in groups),
        "tokens": sum(len(answer) for answer, _ in answers),
        "true_tokens": sum(len(group.truth) for _, group in answers),
        "repetition": sum(repetition(answer) for answer, _ in answers),
    }


def describe(sums: Mapping[str, float]) -> dict[str, float]:
    """A step's figures.

    Args:
        sums: the tally of all of its groups.

    Returns:
        `reward`, `telling` (share of groups that something can be learned from), `length` and `repetition`.
    """
    return {
        "reward": sums["reward"] / sums["answers"],
        "telling": sums["telling"] / sums["groups"],
        "length": sums["tokens"] / sums["true_tokens"],
        "repetition": sums["repetition"] / sums["answers"],
    }
