"""Collections of photographs, and the shards of plans that name them."""

import dataclasses
import hashlib
import uuid
from pathlib import Path

import pytest

from world2vlm.collection import COLLECTIONS, Collection, PhotoScene, load_collection, write_collection
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.splits import Split
from world2vlm.store import Store


def photo(number: int) -> str:
    return f"{hashlib.sha256(str(number).encode()).hexdigest()}.jpg"


def scene(name: str, split: Split, *numbers: int) -> PhotoScene:
    return PhotoScene(name, split, tuple(sorted(map(photo, numbers))))


COLLECTION = Collection(
    (
        scene("attic", "train", *range(6)),
        scene("hall", "test", *range(10, 14)),
        scene("küche", "train", 20),
        scene("lab", "test", 30, 31),
        scene("yard", "calibration", 40, 41),
    ),
    fov_deg=70.5,
)
PLAN = RoundPlan(
    "r1", train_scenes=5, test_scenes=3, calibration_scenes=9, scenes_per_shard=2, photos=COLLECTION.digest
)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_a_collection_reads_back_as_it_was(store: Store) -> None:
    write_collection(store, COLLECTION)
    write_collection(store, COLLECTION)
    assert load_collection(store, COLLECTION.digest) == COLLECTION
    assert store.list() == [f"{COLLECTIONS}/{COLLECTION.digest}.json"]


def test_everything_in_it_is_part_of_its_digest() -> None:
    others = [
        dataclasses.replace(COLLECTION, fov_deg=None),
        dataclasses.replace(COLLECTION, scenes=COLLECTION.scenes[1:]),
        dataclasses.replace(COLLECTION, scenes=(scene("attic", "test", *range(6)), *COLLECTION.scenes[1:])),
    ]
    assert len({each.digest for each in [COLLECTION, *others]}) == 4


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {"scenes": {}},
        {"scenes": {"a": {"split": "holiday", "photos": []}}, "fov_deg": None},
        {"scenes": {"a": {"split": "test", "photos": ["../../secret.jpg"]}}, "fov_deg": None},
        {"scenes": {"a": {"split": "test", "photos": [photo(1)]}}, "fov_deg": 1},
    ],
    ids=str,
)
def test_a_broken_collection_is_corrupted_data(store: Store, payload: object) -> None:
    store.write_json(f"{COLLECTIONS}/{COLLECTION.digest}.json", payload)
    with pytest.raises(DataCorruptedError, match=COLLECTION.digest):
        load_collection(store, COLLECTION.digest)


def test_an_unknown_collection_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        load_collection(store, COLLECTION.digest)
    with pytest.raises(InvalidInputError, match="not the digest"):
        load_collection(store, "../rounds/r1/plan")


def test_a_plan_of_photographs_reads_back_and_older_plans_still_read() -> None:
    assert RoundPlan.from_json(PLAN.to_json()) == PLAN
    rooms = dataclasses.replace(PLAN, photos="")
    assert "photos" not in rooms.to_json() and RoundPlan.from_json(rooms.to_json()) == rooms
    with pytest.raises(InvalidInputError):
        RoundPlan.from_json({**PLAN.to_json(), "photos": "here"})


def test_shards_share_out_photographs_by_split_and_none_twice(store: Store) -> None:
    write_collection(store, COLLECTION)
    state = RoundState(store, "r1")
    state.create(PLAN)
    shards = state.shards()
    assert [shard.index for shard in shards] == state.missing_shards() == list(range(6))
    found = {
        split: [anchor for shard in shards if shard.split == split for anchor in shard.photos]
        for split in ("train", "calibration", "test")
    }
    # As many as the plan wants of those to train on, and as many of each held-out place as of the others.
    assert [len(anchors) for anchors in found.values()] == [5, 2, 3]
    assert {anchor.scene for anchor in found["train"]} <= {"attic", "küche"}
    assert [anchor.scene for anchor in found["test"]] == ["hall", "lab", "hall"]
    everything = [anchor.photo for anchors in found.values() for anchor in anchors]
    assert len(set(everything)) == len(everything)
    assert all(anchor.fov_deg == 70.5 for anchors in found.values() for anchor in anchors)
    assert all(1 <= len(shard.photos) <= 2 and not shard.scene_seeds for shard in shards)


def test_another_seed_trains_on_other_photographs_and_holds_out_the_same() -> None:
    drawn = [dataclasses.replace(PLAN, seed=seed).photo_shards(COLLECTION) for seed in range(8)]
    train = {tuple(shard.photos for shard in shards if shard.split == "train") for shards in drawn}
    held = {tuple(shard.photos for shard in shards if shard.split != "train") for shards in drawn}
    assert len(train) > 1 and len(held) == 1


def test_a_round_whose_collection_is_gone_says_so(store: Store) -> None:
    state = RoundState(store, "r1")
    state.create(PLAN)
    with pytest.raises(NotFoundError, match=COLLECTION.digest):
        state.missing_shards()
