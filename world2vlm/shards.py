"""Shards: what a round imagines, cut into pieces of work."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from world2vlm.collection import Collection
from world2vlm.splits import SPLITS, Split, spread

T = TypeVar("T")


@dataclass(frozen=True)
class PhotoAnchor:
    """A photograph to imagine from.

    Attributes:
        scene: its place's name.
        photo: its file's name in the store's `photos/`.
        fov_deg: its horizontal field of view; None = what its EXIF says.
    """

    scene: str
    photo: str
    fov_deg: float | None = None


@dataclass(frozen=True)
class Shard:
    """One unit of imagining and labelling: scenes of one split, or photographs of one."""

    index: int
    split: Split
    scene_seeds: tuple[int, ...] = ()
    photos: tuple[PhotoAnchor, ...] = ()


def cut(items: Mapping[Split, Sequence[T]], size: int) -> Iterator[tuple[Split, tuple[T, ...]]]:
    """Yield pieces of at most `size` items of one split: to train on first, then to calibrate on, then to test on."""
    for split in SPLITS:
        for start in range(0, len(items[split]), size):
            yield split, tuple(items[split][start : start + size])


def draw_photos(collection: Collection, seed: int, most: Mapping[Split, int]) -> dict[Split, list[PhotoAnchor]]:
    """The photographs of each split that a round imagines.

    The seed draws those to train on, where there are too many. Those held out are the same in every round on the same
    collection, and as evenly from all scenes as can be.
    """
    groups = {
        split: [
            [PhotoAnchor(scene.name, photo, collection.fov_deg) for photo in scene.photos]
            for scene in collection.scenes
            if scene.split == split
        ]
        for split in SPLITS
    }
    train = sorted((anchor for group in groups["train"] for anchor in group), key=lambda anchor: anchor.photo)
    drawn = random.Random(f"{seed}/photos").sample(train, min(most["train"], len(train)))
    return {
        "train": sorted(drawn, key=lambda anchor: anchor.photo),
        "calibration": spread(groups["calibration"], most["calibration"]),
        "test": spread(groups["test"], most["test"]),
    }
