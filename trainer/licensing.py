"""Which worlds bundles and datasets come from, and whether a model may learn from them."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from world2vlm.datasets import Dataset, pick_dataset
from world2vlm.errors import World2VLMError
from world2vlm.licences import Policy, Terms, distinct, stamped_world
from world2vlm.store import Store


def pick_permitted(store: Store, digest: str, policy: Policy) -> Dataset:
    """`pick_dataset`, where the policy lets a model learn from it.

    Raises:
        NotFoundError: there is no such dataset, or not one alone.
        PreconditionError: terms of a world that it comes from are not acknowledged, or not known.
    """
    dataset = pick_dataset(store, digest)
    check_dataset(store, dataset, policy)
    return dataset


def check_dataset(store: Store, dataset: Dataset, policy: Policy) -> None:
    """Do nothing where the policy lets a model learn from a dataset.

    Raises:
        PreconditionError: see `Policy.check`.
        DataCorruptedError: see `Terms.read`.
    """
    policy.check(map(Terms.read, _worlds_of_dataset(store, dataset)))


def worlds_of(store: Store, bundles: Iterable[str]) -> list[dict[str, Any]]:
    """What bundles, by their paths under the store's `bundles/`, say about their worlds, each world once."""
    return distinct(_stamped(store, path) for path in bundles)


def _worlds_of_dataset(store: Store, dataset: Dataset) -> list[dict[str, Any]]:
    """What the manifest says; a dataset without that, older or from elsewhere, is asked bundle by bundle."""
    if worlds := dataset.info.get("worlds"):
        return list(worlds)
    images = {image for records in dataset.splits.values() for record in records for image in record.images}
    return worlds_of(store, {str(PurePosixPath(image).parent.parent) for image in images}) or [{}]


def _stamped(store: Store, bundle: str) -> dict[str, Any]:
    try:
        return stamped_world(store.read_json(f"bundles/{bundle}/traj.json")["traj_params"])
    except (World2VLMError, KeyError, TypeError):
        # No bundle, or a broken one: nothing is known of it.
        return {}
