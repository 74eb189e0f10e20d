"""Balance: within each action text as many yes as no, so that the text of a question says nothing about its answer."""

import json
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from world2vlm.boxes import SCALE
from world2vlm.records import TaskRecord
from world2vlm.tasks import AnswerKind, format_answer, get_task

Group = tuple[str, str]


def is_binary(record: TaskRecord) -> bool:
    """Whether the answer is yes or no (A4, D2, D4): such records are balanced, and selected in pairs."""
    return get_task(record.task_type).kind is AnswerKind.BINARY


def action_group(record: TaskRecord) -> Group:
    """(task, action text in the question): the group within which yes and no must be equally many."""
    return record.task_type, record.meta["claim"]


def identity(record: TaskRecord) -> str:
    """A text that orders records the same way wherever they come from."""
    meta = record.meta
    place = [meta["scene"], meta["trajectory"], meta["frames"]]
    return json.dumps([record.task_type, *place, record.user, record.assistant])


def is_yes(record: TaskRecord) -> bool:
    """Whether a binary record's answer is yes (or true)."""
    return record.assistant == format_answer(record.task_type, True)


def balance(records: Sequence[TaskRecord], seed: int) -> list[TaskRecord]:
    """Drop records of the more frequent answer until each action text has as many yes as no.

    Applies to the binary tasks A4, D2 and D4; an action text with one answer only is dropped, all other records are
    kept. Among the more frequent answers those stay first that match the rarer ones in where the question's box lies
    (left, middle or right third), so that the box's text gives little away either.

    Args:
        records: candidates; their order changes only the order of the result.
        seed: chooses which records stay.

    Returns:
        What stays, in the order given.
    """
    groups: dict[Group, list[int]] = defaultdict(list)
    kept = set()
    for index, record in enumerate(records):
        if is_binary(record):
            groups[action_group(record)].append(index)
        else:
            kept.add(index)
    for group, indices in groups.items():
        rng = random.Random(f"{seed}/{group}")
        indices.sort(key=lambda index: identity(records[index]))
        kept.update(_even(records, indices, rng))
    return [record for index, record in enumerate(records) if index in kept]


def _even(records: Sequence[TaskRecord], indices: Sequence[int], rng: random.Random) -> list[int]:
    yes = [index for index in indices if is_yes(records[index])]
    no = [index for index in indices if not is_yes(records[index])]
    few, many = sorted((yes, no), key=len)
    return [*few, *_match(records, few, many, rng)]


def _match(records: Sequence[TaskRecord], few: Sequence[int], many: Sequence[int], rng: random.Random) -> list[int]:
    """Choose as many of `many` as `few` has, spread over the thirds of the image as `few` is where possible."""
    waiting = _by_third(records, rng.sample(many, len(many)))
    matched = [waiting[third].pop() for third in map(_third, (records[i] for i in few)) if waiting[third]]
    taken = set(matched)
    rest = [index for index in many if index not in taken]
    return matched + rng.sample(rest, len(few) - len(matched))


def _by_third(records: Sequence[TaskRecord], indices: Iterable[int]) -> defaultdict[Hashable, list[int]]:
    thirds: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in indices:
        thirds[_third(records[index])].append(index)
    return thirds


def _third(record: TaskRecord) -> int | None:
    """Third of the image that the box's centre lies in, 0 to 2 from the left; None where the question has no box."""
    box = record.meta.get("box")
    return None if box is None else min(2, 3 * (box[0] + box[2]) // (2 * SCALE))
