"""What records weigh, by how far their worlds can be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

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


def weighted_by_world(
    records: Iterable[TaskRecord], made: Mapping[str, Bundle], rejected: Mapping[str, Bundle]
) -> tuple[list[TaskRecord], dict[str, float]]:
    """Records with the weights of the worlds that imagined them.

    Args:
        records: about frames of `made`.
        made: bundles that every gate let pass, by the paths that the records' images begin with.
        rejected: bundles that count against their worlds.

    Returns:
        The records in their order, and the weights by world's name.
    """
    weights = weights_of([*made.values(), *rejected.values()])

    def weight(record: TaskRecord) -> float:
        return weights.get(world_of(made[str(PurePosixPath(record.images[0]).parents[1])]), 1.0)

    found = [record if weight(record) == 1 else weighted([record], weight(record))[0] for record in records]
    return found, {name: round(each, 4) for (name, _), each in sorted(weights.items())}


def weighted(records: Sequence[TaskRecord], weight: float) -> list[TaskRecord]:
    """The records with a weight, which trainers multiply their loss by; without one it is 1."""
    return [replace(record, meta={**record.meta, "weight": round(weight, 4)}) for record in records]
