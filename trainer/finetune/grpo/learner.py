"""One step of GRPO: the reference's probabilities, and the updates, row by row, so that memory is one row's.

Each process learns from groups of its own. What is divided by counts all answers of the step, and gradients are summed,
so that the processes take the very update that one of them would take from all groups.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from trainer.finetune.grpo.beginning import Begun, Reference
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.grpo.policy import Lesson, Policy
from trainer.finetune.optimizing import make_optimizer, set_rate, update
from trainer.finetune.processes import Processes
from trainer.finetune.state import trained
from trainer.grpo.objective import advantages, choice_losses
from trainer.grpo.rollouts import Group


class Learner:
    """The model that learns, a copy of what it was, and the optimiser.

    Args:
        config: the run.
        begun: the model as it begins.
        policy: its probabilities.
        processes: all of them learn at once; each holds the model.
    """

    def __init__(self, config: FinetuneGrpoConfig, begun: Begun, policy: Policy, processes: Processes) -> None:
        self._config, self._module, self._policy, self._processes = config, begun.module, policy, processes
        self._reference = Reference(begun.module)
        self._schedule = replace(
            begun.config, learning_rate=config.learning_rate, schedule=config.schedule, warmup=config.warmup
        )
        self.optimizer = make_optimizer(self._schedule, begun.module)

    def learn(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Take a step's updates.

        Args:
            groups: this process's; there may be none.
            step: from 0.

        Returns:
            Of the last of them, over all processes: `loss`, `kl` (nats an answer, over groups that tell something),
            `gradient` (the norm before it is clipped); and the step's `rate`.

        Raises:
            DivergedError: loss or gradient is not finite; that update is not made.
            PreconditionError: another process has failed.
        """
        rate = set_rate(self._schedule, self.optimizer, step, self._config.steps)
        figures = {"loss": 0.0, "kl": 0.0, "gradient": 0.0}
        telling = [group for group in groups if group.is_telling]
        answers = self._processes.sums({"answers": sum(len(group.answers) for group in telling)})["answers"]
        if answers:
            with self._processes.together():
                lessons = self._lay_out(telling)
                with self._reference.in_place():
                    references = self._probabilities(lessons)
                olds = self._probabilities(lessons) if self._config.updates > 1 else None
            for _ in range(self._config.updates):
                figures = self._update(lessons, references, olds, answers, step)
        return {**figures, "rate": rate}

    def _lay_out(self, telling: Sequence[Group]) -> list[Lesson]:
        if not telling:
            return []
        rewards = np.stack([group.rewards for group in telling])
        return self._policy.lay_out(telling, advantages(rewards, standardise=self._config.standardise))

    @torch.no_grad()
    def _probabilities(self, lessons: Sequence[Lesson]) -> list[torch.Tensor]:
        return [self._policy.log_probabilities(lesson) for lesson in lessons]

    def _update(
        self,
        lessons: Sequence[Lesson],
        references: Sequence[torch.Tensor],
        olds: Sequence[torch.Tensor] | None,
        answers: float,
        step: int,
    ) -> dict[str, float]:
        with self._processes.together():
            own = self._gradients(lessons, references, olds, answers)
        figures = self._processes.sums(own)
        self._processes.sum_gradients(weight for _, weight in trained(self._module))
        where = f"GRPO step {step + 1} of {self._config.steps}"
        norm = update(self._schedule, self._module, self.optimizer, figures["loss"], where)
        return {**figures, "gradient": norm}

    def _gradients(
        self,
        lessons: Sequence[Lesson],
        references: Sequence[torch.Tensor],
        olds: Sequence[torch.Tensor] | None,
        answers: float,
    ) -> dict[str, float]:
        """Find this process's part of the gradients; returns its part of `loss` and `kl`."""
        total = kl = 0.0
        for index, (lesson, reference) in enumerate(zip(lessons, references, strict=True)):
            new = self._policy.log_probabilities(lesson)
            old = None if olds is None else olds[index]
            losses, drifts = choice_losses(self._config, new, old, lesson.advantage, reference)
            loss = (lesson.row.weights * losses).sum() / answers
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            kl += (lesson.drawn * drifts).sum().item() / answers
        return {"loss": total, "kl": kl}
