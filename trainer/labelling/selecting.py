"""Selections of test records that keep the balance.

Scenes decide what is train and what is test, never frames: see `world2vlm.rounds.RoundPlan.shards`.
"""

import random
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from trainer.labelling.balancing import Group, action_group, identity, is_binary, is_yes
from world2vlm.records import TaskRecord

# Records that only stand together: one, or a yes and a no about the same action text.
Unit = tuple[TaskRecord, ...]


def select_test(records: Sequence[TaskRecord], per_task: int, seed: int) -> list[TaskRecord]:
    """Select up to `per_task` records of each task, spread over scenes.

    Binary records come in pairs of a yes and a no about the same action text, so a balanced set stays balanced.

    Args:
        records: balanced records; their order does not matter.
        per_task: most records of one task; one less where it is odd and the task is binary.
        seed: chooses among the records of a scene.

    Returns:
        The selection, in a fixed order.
    """
    by_task: dict[str, list[TaskRecord]] = defaultdict(list)
    for record in sorted(records, key=identity):
        by_task[record.task_type].append(record)
    selected: list[TaskRecord] = []
    for task, candidates in sorted(by_task.items()):
        rng = random.Random(f"{seed}/{task}")
        rng.shuffle(candidates)
        selected.extend(_take(_spread(_units(candidates)), per_task))
    return selected


def _units(records: Iterable[TaskRecord]) -> list[Unit]:
    units: list[Unit] = []
    waiting: dict[tuple[Group, bool], deque[TaskRecord]] = defaultdict(deque)
    for record in records:
        if not is_binary(record):
            units.append((record,))
            continue
        group, yes = action_group(record), is_yes(record)
        partners = waiting[group, not yes]
        if partners:
            units.append((partners.popleft(), record))
        else:
            waiting[group, yes].append(record)
    return units


def _spread(units: Sequence[Unit]) -> list[Unit]:
    """Order units so that each scene has its turn before any has its second."""
    turns: dict[str, int] = defaultdict(int)
    order = []
    for position, unit in enumerate(units):
        scene = unit[0].meta["scene"]
        order.append((turns[scene], position))
        turns[scene] += 1
    return [units[position] for _, position in sorted(order)]


def _take(units: Iterable[Unit], limit: int) -> list[TaskRecord]:
    taken: list[TaskRecord] = []
    for unit in units:
        if len(taken) + len(unit) > limit:
            break
        taken.extend(unit)
    return taken
