"""The probabilities that a model gives to its choices, with gradients: answers packed into rows, as in fine-tuning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from trainer.finetune.adapting import autocast_dtype
from trainer.finetune.grpo.beginning import Begun
from trainer.finetune.packing import Example, Row, fill_rows, pack
from trainer.grpo.choices import Choice, choices
from trainer.grpo.objective import Floats, log_probabilities
from trainer.grpo.rollouts import Group
from world2vlm.errors import InvalidInputError
from world2vlm.vlm.fullsize.conversation import Form
from world2vlm.vlm.fullsize.families import positions
from world2vlm.vlm.fullsize.grammar import SpeltGrammars
from world2vlm.vlm.fullsize.network import Beginning
from world2vlm.vlm.fullsize.vision import GRID


@dataclass(frozen=True)
class Lesson:
    """A row of answers, with N choices in them.

    Attributes:
        row: the choices are its targets; its weights say what each counts in the sum over answers of the mean over an
            answer's choices.
        drawn: float32 (N,), how often the answer was drawn that a choice belongs to.
        advantage: float32 (N,), that answer's.
        choice, token: int64 (A,), what could have been chosen: the index of a choice, and a token.
    """

    row: Row
    drawn: torch.Tensor
    advantage: torch.Tensor
    choice: torch.Tensor
    token: torch.Tensor

    def to(self, device: torch.device) -> "Lesson":
        """The lesson with all of its tensors on a device."""
        names = ("row", "drawn", "advantage", "choice", "token")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


@dataclass(frozen=True)
class _Answer:
    group: Group
    example: Example
    choices: list[Choice]
    drawn: int
    advantage: float


class Policy:
    """A model as a distribution over what the tasks' grammars allow.

    Args:
        begun: the model.
        grammars: of its tokenizer.
        form: of its conversations.
    """

    def __init__(self, begun: Begun, grammars: SpeltGrammars, form: Form) -> None:
        self._begun, self._grammars, self._form = begun, grammars, form
        self._autocast = autocast_dtype(begun.config)

    def lay_out(self, groups: Sequence[Group], advantages: Floats) -> list[Lesson]:
        """Lay out groups for `log_probabilities`; an answer that was drawn several times is in one row only.

        Args:
            groups: N groups of G answers.
            advantages: (N, G).

        Raises:
            InvalidInputError: a question with its answer is longer than a row.
        """
        answers = [
            answer
            for group, better in zip(groups, advantages.tolist(), strict=True)
            for answer in self._answers(group, better)
        ]
        lengths = [len(answer.example.ids) for answer in answers]
        budget = self._begun.config.row_tokens
        if max(lengths, default=0) > budget:
            raise InvalidInputError(
                f"an answer with its question has {max(lengths)} tokens and a row {budget}: raise row_tokens"
            )
        return [self._lesson([answers[index] for index in row]) for row in fill_rows(lengths, budget)]

    def log_probabilities(self, lesson: Lesson) -> torch.Tensor:
        """Of each choice among what was allowed: float32 (N,)."""
        row = lesson.row
        with torch.autocast(row.ids.device.type, self._autocast, enabled=self._autocast is not None):
            hidden = self._begun.module.hidden_states(row)[row.places - 1]
            logits: torch.Tensor = self._begun.model.lm_head(hidden).float()
        allowed = torch.zeros_like(logits, dtype=torch.bool)
        allowed[lesson.choice, lesson.token] = True
        return log_probabilities(logits, allowed, row.targets)

    def _answers(self, group: Group, better: list[float]) -> Iterator[_Answer]:
        """A group's distinct answers, those that hold a choice."""
        for answer in dict.fromkeys(group.answers):
            constraint = self._grammars.constraint(group.record.task_type)
            if found := choices(constraint, answer, self._form.end):
                drawn, advantage = group.answers.count(answer), better[group.answers.index(answer)]
                yield _Answer(group, self._example(group, answer, found), found, drawn, advantage)

    def _example(self, group: Group, answer: tuple[int, ...], found: Sequence[Choice]) -> Example:
        clip: Beginning = group.clip
        prompt = [*clip.ids, *group.prompt]
        # Where nothing but the end could follow, it was not chosen.
        ends = [self._form.end] if found[-1].place == len(answer) else []
        ids = torch.tensor([*prompt, *answer, *ends])
        is_choice = torch.zeros(len(ids), dtype=torch.bool)
        is_choice[[len(prompt) + choice.place for choice in found]] = True
        grids = [seen.tensors[GRID] for seen in clip.pictures if GRID in seen.tensors]
        place = positions(self._begun.model.model, self._begun.family, ids, torch.cat(grids) if grids else None)
        return Example(ids, is_choice, place, tuple(seen.digest.hex() for seen in clip.pictures))

    def _lesson(self, answers: Sequence[_Answer]) -> Lesson:
        each = [choice for answer in answers for choice in answer.choices]
        counts = torch.tensor([len(answer.choices) for answer in answers])
        pictures = {seen.digest.hex(): seen.tensors for answer in answers for seen in answer.group.clip.pictures}
        return Lesson(
            pack(
                [answer.example for answer in answers],
                [answer.drawn / len(answer.choices) for answer in answers],
                pictures,
            ),
            torch.tensor([float(answer.drawn) for answer in answers]).repeat_interleave(counts),
            torch.tensor([answer.advantage for answer in answers]).repeat_interleave(counts),
            torch.arange(len(each)).repeat_interleave(torch.tensor([len(choice.allowed) for choice in each])),
            torch.cat([torch.from_numpy(choice.allowed) for choice in each]),
        ).to(self._begun.model.device)
