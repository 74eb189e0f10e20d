import random
import uuid
from itertools import count
from pathlib import Path

import pytest

from world2vlm.datasets import list_datasets, load_dataset, publish_dataset
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.records import TaskRecord, to_line
from world2vlm.store import Store

TRAIN = [
    TaskRecord.create("D2", f"Is it gone after {n}?", "yes", [f"scenes/{n}/traj_0/frames/000.png"]) for n in range(9)
]
TEST = [TaskRecord.create("A1", "How far?", "move forward 1 meters", ["a.png", "b.png"], {"scene": "x"})]
SPLITS = {"train": TRAIN, "test": TEST}


class Killed(Exception):
    pass


class MortalStore(Store):
    """Dies right before a given write; each write by itself is whole or absent (see the contract suite)."""

    def __init__(self, url: Path, writes: int) -> None:
        super().__init__(url)
        self.left = writes

    def _spend(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def write_bytes(self, path: str, data: bytes) -> None:
        self._spend()
        super().write_bytes(path, data)

    def create_bytes(self, path: str, data: bytes) -> bool:
        self._spend()
        return super().create_bytes(path, data)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_a_dataset_loads_as_it_was_published(store: Store) -> None:
    published = publish_dataset(store, SPLITS, {"round": "r1", "rejected": {"collision": 3}})
    loaded = load_dataset(store, published.digest)
    assert loaded == published
    assert loaded.info == {"round": "r1", "rejected": {"collision": 3}}
    assert sorted(loaded.splits["train"], key=to_line) == sorted(TRAIN, key=to_line)
    assert list(loaded.splits["test"]) == TEST
    assert loaded.by_task == {"A1": 1, "D2": 9}
    assert list_datasets(store) == [published.digest]


def test_publishing_twice_changes_nothing(store: Store) -> None:
    first = publish_dataset(store, SPLITS, {"round": "r1"})
    files = {path: store.read_bytes(path) for path in store.list()}
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    second = publish_dataset(store, {"test": TEST, "train": shuffled}, {"round": "r2"})
    assert second == first
    assert {path: store.read_bytes(path) for path in store.list()} == files


@pytest.mark.parametrize(
    "splits",
    [
        {"train": TRAIN[:-1], "test": TEST},
        {"train": [*TRAIN, TRAIN[0]], "test": TEST},
        {"train": [*TRAIN, *TEST], "test": []},
        {"train": TRAIN},
        {"train": TRAIN, "held-out": TEST},
    ],
    ids=["one less", "one twice", "moved", "no test", "renamed"],
)
def test_any_change_changes_the_digest(tmp_path: Path, splits: dict[str, list[TaskRecord]]) -> None:
    store = Store(tmp_path)
    assert publish_dataset(store, splits, {}).digest != publish_dataset(store, SPLITS, {}).digest
    assert len(list_datasets(store)) == 2


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {"train": []},
        {"../train": TRAIN},
        {"": TRAIN},
        {"train": [TaskRecord.create("A1", "?", "x", ["/etc/passwd"])]},
        {"train": [TaskRecord.create("A1", "?", "x", ["a/../../b.png"])]},
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path: Path, splits: dict[str, list[TaskRecord]]) -> None:
    store = Store(tmp_path)
    with pytest.raises(InvalidInputError):
        publish_dataset(store, splits, {})
    assert store.list() == []


@pytest.mark.parametrize("name", ["train.jsonl", "test.jsonl"])
def test_a_flipped_byte_is_found(store: Store, name: str) -> None:
    digest = publish_dataset(store, SPLITS, {}).digest
    data = bytearray(store.read_bytes(f"datasets/{digest}/{name}"))
    data[len(data) // 2] ^= 1
    store.write_bytes(f"datasets/{digest}/{name}", bytes(data))
    with pytest.raises(DataCorruptedError, match=name):
        load_dataset(store, digest)


def test_a_missing_split_is_found(store: Store) -> None:
    digest = publish_dataset(store, SPLITS, {}).digest
    store.delete(f"datasets/{digest}/test.jsonl")
    with pytest.raises(DataCorruptedError, match=r"test\.jsonl: missing"):
        load_dataset(store, digest)


def test_a_manifest_that_was_swapped_for_another_is_found(store: Store) -> None:
    digest = publish_dataset(store, SPLITS, {}).digest
    other = publish_dataset(store, {"train": TRAIN[:2]}, {}).digest
    for path in store.list(f"datasets/{other}"):
        store.write_bytes(path.replace(other, digest), store.read_bytes(path))
    with pytest.raises(DataCorruptedError, match="do not have this digest"):
        load_dataset(store, digest)


@pytest.mark.parametrize("manifest", [[], {}, {"splits": [], "info": {}}, {"splits": {"train": 1}, "info": {}}])
def test_a_broken_manifest_is_found(store: Store, manifest: object) -> None:
    digest = publish_dataset(store, SPLITS, {}).digest
    store.write_json(f"datasets/{digest}/manifest.json", manifest)
    with pytest.raises(DataCorruptedError, match=r"manifest\.json"):
        load_dataset(store, digest)


def test_an_unknown_dataset_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        load_dataset(store, "0" * 64)


def test_a_publisher_may_die_at_any_write(tmp_path: Path) -> None:
    for writes in count():
        folder = tmp_path / str(writes)
        try:
            digest = publish_dataset(MortalStore(folder, writes), SPLITS, {}).digest
        except Killed:
            assert list_datasets(Store(folder)) == []
            digest = publish_dataset(Store(folder), SPLITS, {}).digest
            assert load_dataset(Store(folder), digest).by_task == {"A1": 1, "D2": 9}
        else:
            break
    assert writes == 3  # two splits and the manifest
