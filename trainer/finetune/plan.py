"""Which examples are in which step: the same on every process, known before the first step, fixed by the seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from trainer.finetune.config import FinetuneConfig
from trainer.finetune.packing import fill_rows
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord

FORWARD = frozenset({"A4", "D1", "D2", "D4"})
INVERSE = frozenset({"A1", "A2", "A3", "D3"})


@dataclass(frozen=True)
class Size:
    """What a plan needs to know of an example: its tokens, those of the answer, and what each of these counts."""

    tokens: int
    answer_tokens: int
    weight: float = 1.0


@dataclass(frozen=True)
class Step:
    """One optimiser step.

    Attributes:
        rows: indices of each row's examples.
        total: the weights of all of its answer tokens together, which its loss is divided by. So the gradient does
            not depend on how the examples are shared out among rows, devices and accumulation.
    """

    rows: tuple[tuple[int, ...], ...]
    total: float

    def of_process(self, rank: int, world: int) -> list[tuple[int, ...]]:
        """The rows of one process; every process has as many, so one of the last may be empty."""
        each = math.ceil(len(self.rows) / world)
        mine = list(self.rows[rank::world])
        return mine + [()] * (each - len(mine))


def record_weight(config: FinetuneConfig, record: TaskRecord) -> float:
    """What a record's answer tokens count: its teacher's reliability (`meta["weight"]`) times its direction's weight.

    Raises:
        InvalidInputError: the weight is no finite number from 0 on.
    """
    factors: Mapping[frozenset[str], float] = {FORWARD: config.lambda_forward, INVERSE: config.lambda_inverse}
    direction = next((factor for codes, factor in factors.items() if record.task_type in codes), 1.0)
    return record.weight * direction


def plan_steps(config: FinetuneConfig, sizes: Sequence[Size], fresh: int, world: int) -> list[Step]:
    """All steps of a run.

    Args:
        config: the run.
        sizes: of the fresh examples, then of those to replay.
        fresh: how many are fresh.
        world: processes.

    Raises:
        InvalidInputError: no examples, or one is longer than a row, or nothing weighs anything, or replay is asked for
            and there is nothing to replay.
    """
    if not fresh:
        raise InvalidInputError("there are no records to train on")
    longest = max(size.tokens for size in sizes)
    if longest > config.row_tokens:
        raise InvalidInputError(
            f"an example has {longest} tokens and a row {config.row_tokens}: raise row_tokens or use smaller images"
        )
    if config.replay and fresh == len(sizes):
        raise InvalidInputError("replay needs records of earlier rounds, and there are none")
    steps: list[Step] = []
    epoch = 0
    while epoch < config.epochs if config.steps is None else len(steps) < config.steps:
        found = _epoch(config, sizes, fresh, world, epoch)
        if not found:
            raise InvalidInputError("every record weighs nothing")
        steps += found
        epoch += 1
    return steps[: config.steps]


def _epoch(config: FinetuneConfig, sizes: Sequence[Size], fresh: int, world: int, epoch: int) -> list[Step]:
    random = Random(f"{config.seed}/{epoch}")
    replayed = round(fresh * config.replay / (1 - config.replay))
    order = [*range(fresh), *random.choices(range(fresh, len(sizes)), k=replayed)] if replayed else list(range(fresh))
    order = [index for index in order if sizes[index].weight]
    random.shuffle(order)
    rows = [
        tuple(order[place] for place in row)
        for row in fill_rows([sizes[index].tokens for index in order], config.row_tokens)
    ]
    together = world * config.accumulation
    steps = [tuple(rows[start : start + together]) for start in range(0, len(rows), together)]
    return [Step(rows, _total(sizes, rows)) for rows in steps]


def _total(sizes: Sequence[Size], rows: Sequence[Sequence[int]]) -> float:
    return math.fsum(sizes[index].weight * sizes[index].answer_tokens for row in rows for index in row)
