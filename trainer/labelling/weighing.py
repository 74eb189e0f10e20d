"""What records weigh, by how far their worlds can be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from world2vlm.bundles import Bundle
from world2vlm.records import TaskRecord
from world2vlm.reliability import World, measure, world_of


def weights_of(bundles: Iterable[Bundle]) -> Mapping[World, float]:
    """What a record of each world weighs, by what the gates said about its bundles, rejected ones among them.

    A world of which no gate judged a view is left out: nothing is known of it.
    """
    made: dict[World, list[Bundle]] = {}
    for bundle in bundles:
        made.setdefault(world_of(bundle), []).append(bundle)
    found = {world: measure(each) for world, each in made.items()}
    return {world: reliability.weight for world, reliability in found.items() if reliability.judged}


def weighted(records: Sequence[TaskRecord], weight: float) -> list[TaskRecord]:
    """The records with a weight, which trainers multiply their loss by; without one it is 1."""
    return [replace(record, meta={**record.meta, "weight": round(weight, 4)}) for record in records]
