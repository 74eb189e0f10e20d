"""What a dataset of photographs needs beyond one of rooms: tasks may be missing, and all may have been rejected."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from trainer.imagining import ASIDE, BUNDLES
from trainer.labelling.weighing import weighted_by_world
from trainer.sources import Photograph
from world2vlm.bundles import Bundle, read_bundle
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.rounds import RoundState
from world2vlm.store import Store
from world2vlm.tasks import TASKS

Splits = dict[str, list[TaskRecord]]


def finish_photos(
    store: Store,
    splits: Mapping[str, Sequence[TaskRecord]],
    bundles: Sequence[str],
    aside: Sequence[str],
    rejected: Mapping[str, int],
) -> tuple[Splits, dict[str, float]]:
    """What is left of photographs' records, those to train on weighed, and what those of each world weigh.

    Args:
        store: where the bundles are.
        splits: balanced records.
        bundles: paths of all bundles that they are about.
        aside: paths of the rejected ones that are kept.
        rejected: how many trajectories each gate rejected.

    Raises:
        InvalidInputError: nothing is left to train or to test on.
    """
    kept = drop_untrained(splits)
    check_labelled(kept, rejected)
    made, failed = _read_bundles(store, BUNDLES, bundles), _read_bundles(store, ASIDE, aside)
    train, weights = weighted_by_world(kept["train"], made, failed)
    return {**kept, "train": train}, weights


def drop_untrained(splits: Mapping[str, Sequence[TaskRecord]]) -> Splits:
    """Leave out of all other splits the tasks that no training record asks.

    Nobody learns them, and no baseline can be fitted.
    """
    trained = {record.task_type for record in splits["train"]}
    return {name: [each for each in records if each.task_type in trained] for name, records in splits.items()}


def missing_tasks(splits: Mapping[str, Sequence[TaskRecord]]) -> list[str]:
    """The tasks that no question of the split `test` asks."""
    asked = {record.task_type for record in splits["test"]}
    return [task for task in TASKS if task not in asked]


def silent_places(state: RoundState) -> dict[str, str]:
    """Why there may be no question about each place that a round holds out, by its scene's name in records."""
    places: dict[str, str] = {}
    seen: set[str] = set()
    for shard in state.shards():
        if shard.split == "test":
            places |= {Photograph(anchor).scene: anchor.scene for anchor in shard.photos}
            seen |= {PurePosixPath(path).parent.name for path in state.read_shard(shard.index)[1]["bundles"]}
    return {
        scene: f"no question about {place} was kept" if scene in seen else f"every view of {place} was rejected"
        for scene, place in places.items()
    }


def check_labelled(splits: Mapping[str, Sequence[TaskRecord]], rejected: Mapping[str, int]) -> None:
    """Do nothing where there is something to train and to test on.

    Raises:
        InvalidInputError: there is not; says what the gates rejected.
    """
    empty = [name for name in ("train", "test") if not splits[name]]
    if empty:
        gates = ", ".join(f"{count} by {gate}" for gate, count in sorted(rejected.items())) or "none"
        raise InvalidInputError(
            f"no photograph of the split {' or '.join(empty)} could be labelled; trajectories rejected: {gates}. Add "
            f"photographs with room to move in, sharp and with detail, and say their field of view (--fov)"
        )


def _read_bundles(store: Store, folder: str, paths: Iterable[str]) -> dict[str, Bundle]:
    """Bundles of a folder of the store by their paths in it, without their pixels."""
    return {path: read_bundle(store.local(f"{folder}/{path}/traj.json").parent) for path in sorted(set(paths))}
