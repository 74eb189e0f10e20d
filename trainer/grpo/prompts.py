"""Which questions a step asks: equally many of each task, a function of the seed and the step."""

import random
from collections import defaultdict
from collections.abc import Sequence

from trainer.grpo.config import GroupConfig
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS


class Prompts:
    """Draws task records.

    Raises:
        InvalidInputError: there is no record of any task that is asked for.
    """

    def __init__(self, config: GroupConfig, records: Sequence[TaskRecord]) -> None:
        by_task: dict[str, list[TaskRecord]] = defaultdict(list)
        for record in records:
            if record.task_type in (config.tasks or TASKS):
                by_task[record.task_type].append(record)
        if not by_task:
            wanted = ", ".join(config.tasks or TASKS)
            raise InvalidInputError(f"the dataset holds no question of {wanted}: there is nothing to train on")
        self._seed, self._count = config.seed, config.prompts
        self._tasks = sorted(by_task)
        rng = random.Random(f"{config.seed}/pool")
        share = -(-config.pool // len(by_task)) if config.pool else len(records)
        self._pools = {task: rng.sample(by_task[task], min(share, len(by_task[task]))) for task in self._tasks}

    @property
    def pool(self) -> list[TaskRecord]:
        """All questions that may be drawn."""
        return [record for task in self._tasks for record in self._pools[task]]

    def draw(self, step: int, slot: int, attempt: int = 0) -> TaskRecord:
        """The question in a slot of a step; of the slot's task at every attempt."""
        task = self._tasks[(step * self._count + slot) % len(self._tasks)]
        return random.Random(f"{self._seed}/{step}/{slot}/{attempt}").choice(self._pools[task])
