import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from world2vlm.checkpoints import Manifest, Registry
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.store import Store

FILES = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "tokenizer/vocab.json": b"[]"}


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return Store(url, cache=tmp_path / "cache")


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, "student")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "checkpoint"


def publish(registry: Registry, folder: Path, key: str, **changes: Any) -> Manifest:
    defaults: dict[str, Any] = {
        "parent": None,
        "kind": "full",
        "dataset_digest": "d" * 64,
        "recipe": "sft",
        "metrics": {"held_out": 0.5},
    }
    return registry.publish(folder, key=key, **{**defaults, **changes})


def test_a_checkpoint_is_what_was_published(registry: Registry, folder: Path) -> None:
    manifest = publish(registry, folder, "base")
    assert (manifest.name, manifest.version, manifest.parent, manifest.kind) == ("student", 1, None, "full")
    assert manifest.files == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert manifest.metrics == {"held_out": 0.5}
    assert registry.get(1) == manifest
    assert registry.verify(1) == manifest
    fetched = registry.fetch(1)
    assert {name: (fetched / name).read_bytes() for name in FILES} == FILES


def test_versions_increase(registry: Registry, folder: Path) -> None:
    versions = [publish(registry, folder, f"round {n}", parent=n or None).version for n in range(11)]
    assert versions == list(range(1, 12))
    assert registry.versions() == versions
    assert [manifest.parent for manifest in registry.list()] == [None, *versions[:-1]]


def test_a_key_is_published_once(registry: Registry, folder: Path) -> None:
    first = publish(registry, folder, "round 1")
    (folder / "model.safetensors").write_bytes(b"trained again, and not quite the same")
    assert publish(registry, folder, "round 1", metrics={"held_out": 0.6}) == first
    assert registry.versions() == [1]
    assert (registry.fetch(1) / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_names_are_registries_of_their_own(store: Store, folder: Path) -> None:
    publish(Registry(store, "student"), folder, "base")
    other = Registry(store, "teacher-lora")
    assert other.versions() == []
    assert publish(other, folder, "base").version == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a b"])
def test_a_bad_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidInputError):
        Registry(store, name)


def test_hidden_files_are_not_published(registry: Registry, folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    assert set(publish(registry, folder, "base").files) == set(FILES)


def test_what_is_no_checkpoint_is_refused(registry: Registry, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no files"):
        publish(registry, tmp_path / "empty", "a")
    with pytest.raises(InvalidInputError, match="not JSON"):
        publish(registry, folder, "b", metrics={"loss": float("nan")})
    with pytest.raises(NotFoundError, match="no version 7"):
        publish(registry, folder, "c", parent=7)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"manifest\.json"):
        publish(registry, folder, "d")
    assert registry.versions() == []


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_and_named(store: Store, registry: Registry, folder: Path, name: str) -> None:
    publish(registry, folder, "base")
    data = bytearray(FILES[name])
    data[len(data) // 2] ^= 1
    store.write_bytes(f"checkpoints/student/1/{name}", bytes(data))
    for check in (registry.verify, registry.fetch):
        with pytest.raises(DataCorruptedError, match=f"{name}: differs"):
            check(1)


def test_a_missing_file_is_found_and_named(store: Store, registry: Registry, folder: Path) -> None:
    publish(registry, folder, "base")
    store.delete("checkpoints/student/1/config.json")
    with pytest.raises(DataCorruptedError, match=r"config\.json: missing"):
        registry.fetch(1)


def test_a_file_that_the_manifest_does_not_name_is_not_trusted(store: Store, registry: Registry, folder: Path) -> None:
    publish(registry, folder, "base")
    store.write_bytes("checkpoints/student/1/adapter_model.safetensors", b"")
    with pytest.raises(DataCorruptedError, match=r"adapter_model\.safetensors: not named"):
        registry.fetch(1)


@pytest.mark.parametrize(
    "change",
    [{"metrics": {"held_out": 0.9}}, {"files": {}}, {"version": 2}, {"digest": ""}, {"unknown": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_manifest_is_found(store: Store, registry: Registry, folder: Path, change: dict[str, Any]) -> None:
    manifest = publish(registry, folder, "base")
    store.write_json("checkpoints/student/1/manifest.json", {**manifest.to_json(), **change})
    with pytest.raises(DataCorruptedError, match=r"1/manifest\.json"):
        registry.get(1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}"])
def test_a_broken_manifest_is_found(store: Store, registry: Registry, folder: Path, content: bytes) -> None:
    publish(registry, folder, "base")
    store.write_bytes("checkpoints/student/1/manifest.json", content)
    with pytest.raises(DataCorruptedError, match=r"1/manifest\.json"):
        registry.verify(1)


def test_a_half_published_version_is_none_and_its_number_is_not_reused(
    store: Store, registry: Registry, folder: Path
) -> None:
    publish(registry, folder, "base")
    store.write_bytes("checkpoints/student/2/model.safetensors", b"half")
    assert registry.versions() == [1]
    for call in (registry.get, registry.verify, registry.fetch):
        with pytest.raises(NotFoundError, match="student has no version 2"):
            call(2)
    with pytest.raises(NotFoundError):
        registry.set_serving(2, "by mistake")
    assert publish(registry, folder, "round 1").version == 3
    assert registry.versions() == [1, 3]


def test_nothing_serves_at_first(registry: Registry) -> None:
    assert registry.serving() is None
    assert registry.previous() is None
    assert registry.history() == []


def test_what_serves_is_recorded_with_its_history(registry: Registry, folder: Path) -> None:
    for n in range(1, 4):
        publish(registry, folder, str(n))
        registry.set_serving(n, f"round {n}")
        registry.set_serving(n, "again")
    assert registry.serving() == 3
    assert [(entry.version, entry.reason) for entry in registry.history()] == [
        (1, "round 1"),
        (2, "round 2"),
        (3, "round 3"),
    ]
    times = [entry.at for entry in registry.history()]
    assert times == sorted(times)


def test_rolling_back_twice_goes_back_two_versions(registry: Registry, folder: Path) -> None:
    for n in range(1, 5):
        publish(registry, folder, str(n))
    for n in range(1, 4):
        registry.set_serving(n, "promoted")
    for expected in (2, 1):
        previous = registry.previous()
        assert previous == expected
        registry.set_serving(previous, "rolled back")
    assert registry.previous() is None
    registry.set_serving(4, "promoted")
    assert registry.previous() == 1
    assert [entry.version for entry in registry.history()] == [1, 2, 3, 2, 1, 4]


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"history": [{"version": 1}]}'])
def test_a_broken_history_is_found(store: Store, registry: Registry, content: bytes) -> None:
    store.write_bytes("checkpoints/student/serving.json", content)
    with pytest.raises(DataCorruptedError, match=r"serving\.json"):
        registry.serving()
