"""The probabilities that a student gives to its choices, with gradients: one row of tokens for each group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.grpo.choices import Choice, choices
from trainer.grpo.objective import log_probabilities
from trainer.grpo.rollouts import Group
from trainer.packing import PackedStudent, Rows, block_mask, padded_length
from world2vlm.vlm import StudentModel


@dataclass(frozen=True)
class GroupBatch:
    """N groups laid out: in each row a clip and its question, which all answers of the group continue.

    Attributes:
        frames: uint8 (N, 2, S, S, 3).
        rows: the tokens.
        row, column: int64 (C,), where the state lies that each of the C choices was made from.
        token: int64 (C,), what was chosen.
        allowed: bool (C, vocabulary), what could have been.
        answer: int64 (C,), index of the answer that a choice belongs to, group by group.
        answers: how many there are.
    """

    frames: NDArray[np.uint8]
    rows: Rows
    row: torch.Tensor
    column: torch.Tensor
    token: torch.Tensor
    allowed: torch.Tensor
    answer: torch.Tensor
    answers: int


@dataclass(frozen=True)
class _Laid:
    ids: list[int]
    branch: list[int]
    positions: list[int]  # after the prefix
    columns: list[int]
    choices: list[Choice]
    answer: list[int]


class Policy:
    """A student as a distribution over what the tasks' grammars allow."""

    def __init__(self, student: StudentModel) -> None:
        self._student = student
        self._packed = PackedStudent(student)
        self._eos = student.processor.tokenizer.eos_token_id
        self._vocabulary = student.model.lm_head.out_features

    def lay_out(self, groups: Sequence[Group]) -> GroupBatch:
        """Lay out groups for `log_probabilities`."""
        laid = [self._lay_out(group) for group in groups]
        firsts = np.cumsum([0, *(len(group.answers) for group in groups)])
        made = [choice for row in laid for choice in row.choices]
        allowed = torch.zeros(len(made), self._vocabulary, dtype=torch.bool)
        for number, choice in enumerate(made):
            allowed[number, torch.from_numpy(choice.allowed)] = True
        return GroupBatch(
            np.stack([group.clip for group in groups]),
            self._rows(laid),
            torch.tensor([number for number, row in enumerate(laid) for _ in row.choices]),
            torch.tensor([column for row in laid for column in row.columns]),
            torch.tensor([choice.token for choice in made]),
            allowed,
            torch.tensor([first + each for first, row in zip(firsts, laid, strict=False) for each in row.answer]),
            int(firsts[-1]),
        )

    def log_probabilities(self, batch: GroupBatch) -> torch.Tensor:
        """Of each choice among what was allowed: float32 (C,)."""
        hidden = self._packed.hidden_states(batch.rows, self._packed.see(batch.frames))
        logits = self._student.model.lm_head(hidden[batch.row, batch.column]).float()
        return log_probabilities(logits, batch.allowed, batch.token)

    def _lay_out(self, group: Group) -> _Laid:
        network = self._packed.network
        ids = [*network.prefix_ids, *group.prompt]
        first = network.first_position
        laid = _Laid(ids, [0] * len(ids), [*range(first, first + len(group.prompt))], [], [], [])
        end = len(ids) - 1
        for number, answer in enumerate(group.answers):
            start = len(laid.ids)
            constraint = self._student.grammars.constraint(group.record.task_type)
            for choice in choices(constraint, answer, self._eos):
                laid.columns.append(start + choice.place - 1 if choice.place else end)
                laid.choices.append(choice)
                laid.answer.append(number)
            laid.ids.extend(answer)
            laid.branch.extend([number + 1] * len(answer))
            begin = first + len(group.prompt)
            laid.positions.extend(range(begin, begin + len(answer)))
        return laid

    def _rows(self, laid: Sequence[_Laid]) -> Rows:
        length = padded_length([row.ids for row in laid])
        prefix = self._packed.network.prefix_positions
        ids = torch.full((len(laid), length), self._student.processor.tokenizer.pad_token_id)
        branch = torch.full((len(laid), length), -1)
        positions = torch.zeros(3, len(laid), length, dtype=torch.int64)
        for number, row in enumerate(laid):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            branch[number, : len(row.branch)] = torch.tensor(row.branch)
            positions[:, number, : len(prefix)] = torch.from_numpy(prefix).T
            positions[:, number, len(prefix) : len(row.ids)] = torch.tensor(row.positions)
        return Rows(ids, block_mask(branch), positions)
