"""One step of GRPO: the reference's probabilities, and the updates, row by row, so that memory is one row's."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from trainer.finetune.grpo.beginning import Begun, Reference
from trainer.finetune.grpo.config import FinetuneGrpoConfig
from trainer.finetune.grpo.policy import Lesson, Policy
from trainer.finetune.optimizing import make_optimizer, set_rate, update
from trainer.grpo.objective import advantages, choice_losses
from trainer.grpo.rollouts import Group


class Learner:
    """The model that learns, a copy of what it was, and the optimiser.

    Args:
        config: the run.
        begun: the model as it begins.
        policy: its probabilities.
    """

    def __init__(self, config: FinetuneGrpoConfig, begun: Begun, policy: Policy) -> None:
        self._config, self._module, self._policy = config, begun.module, policy
        self._reference = Reference(begun.module)
        self._schedule = replace(
            begun.config, learning_rate=config.learning_rate, schedule=config.schedule, warmup=config.warmup
        )
        self.optimizer = make_optimizer(self._schedule, begun.module)

    def learn(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Take a step's updates.

        Returns:
            Of the last of them: `loss`, `kl` (nats an answer, over groups that tell something), `gradient` (the norm
            before it is clipped); and the step's `rate`.

        Raises:
            DivergedError: loss or gradient is not finite; that update is not made.
        """
        rate = set_rate(self._schedule, self.optimizer, step, self._config.steps)
        figures = {"loss": 0.0, "kl": 0.0, "gradient": 0.0}
        telling = [group for group in groups if group.is_telling]
        if telling:
            rewards = np.stack([group.rewards for group in telling])
            lessons = self._policy.lay_out(telling, advantages(rewards, standardise=self._config.standardise))
            with self._reference.in_place():
                references = self._probabilities(lessons)
            olds = self._probabilities(lessons) if self._config.updates > 1 else None
            for _ in range(self._config.updates):
                figures = self._update(lessons, references, olds, step)
        return {**figures, "rate": rate}

    @torch.no_grad()
    def _probabilities(self, lessons: Sequence[Lesson]) -> list[torch.Tensor]:
        return [self._policy.log_probabilities(lesson) for lesson in lessons]

    def _update(
        self,
        lessons: Sequence[Lesson],
        references: Sequence[torch.Tensor],
        olds: Sequence[torch.Tensor] | None,
        step: int,
    ) -> dict[str, float]:
        config = self._config
        total = kl = 0.0
        for index, (lesson, reference) in enumerate(zip(lessons, references, strict=True)):
            new = self._policy.log_probabilities(lesson)
            losses, drifts = choice_losses(
                config, new, None if olds is None else olds[index], lesson.advantage, reference
            )
            loss = (lesson.row.weights * losses).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
            kl += (lesson.share * drifts).sum().item()
        norm = update(self._schedule, self._module, self.optimizer, total, f"GRPO step {step + 1} of {config.steps}")
        return {"loss": total, "kl": kl, "gradient": norm}
