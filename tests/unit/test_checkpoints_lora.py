"""The registry's LoRA checkpoints, and the history of versions that failed while they served."""

import json
from pathlib import Path
from typing import Any

import pytest

from world2vlm.checkpoint_manifest import ADAPTER_FILES
from world2vlm.checkpoints import Kind, Manifest, Registry
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError, PreconditionError
from world2vlm.store import Store


class Place:
    """A store, its registry, and folders to publish."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.registry = Registry(self.store, "student")

    def publish(self, kind: Kind, names: set[str], parent: int | None, key: str) -> Manifest:
        source = self.folder / key
        source.mkdir()
        for name in names:
            (source / name).write_text(f"{key} {name}")
        return self.registry.publish(
            source, parent=parent, kind=kind, dataset_digest="", recipe="test", metrics={}, key=key
        )

    def full(self, key: str) -> Manifest:
        return self.publish("full", {"model.safetensors", "config.json"}, None, key)

    def lora(self, parent: int | None, key: str = "lora", more: tuple[str, ...] = ()) -> Manifest:
        return self.publish("lora", {*ADAPTER_FILES, *more}, parent, key)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.full("base")
    return place


def test_an_adapter_names_its_parent_and_the_parents_digest(place: Place) -> None:
    manifest = place.lora(1, more=("README.md", "calibration.json"))
    assert (manifest.version, manifest.kind, manifest.parent) == (2, "lora", 1)
    assert manifest.parent_digest == place.registry.get(1).digest
    assert set(manifest.files) == {*ADAPTER_FILES, "README.md", "calibration.json"}
    assert (place.registry.fetch_base(2) or Path()).joinpath("config.json").read_text() == "base config.json"
    assert place.registry.fetch_base(1) is None


@pytest.mark.parametrize(
    "names", [{"adapter_config.json"}, {*ADAPTER_FILES, "adapter_model.bin"}, {"model.safetensors"}]
)
def test_an_adapter_is_two_files_and_nothing_that_runs(place: Place, names: set[str]) -> None:
    with pytest.raises(InvalidInputError, match="a LoRA adapter is"):
        place.publish("lora", names, 1, "odd")
    assert place.registry.versions() == [1]


def test_a_full_checkpoint_holds_no_adapter(place: Place) -> None:
    with pytest.raises(InvalidInputError, match="must not hold"):
        place.publish("full", {"model.safetensors", "adapter_config.json"}, None, "odd")


def test_an_adapter_needs_a_full_parent(place: Place) -> None:
    with pytest.raises(InvalidInputError, match="needs the parent"):
        place.lora(None, "orphan")
    with pytest.raises(NotFoundError):
        place.lora(7, "lost")
    place.lora(1)
    with pytest.raises(InvalidInputError, match="full checkpoint"):
        place.lora(2, "second floor")


def test_another_parent_under_the_same_number_is_a_failed_precondition(place: Place, tmp_path: Path) -> None:
    place.lora(1)
    place.store.delete("checkpoints/student/1")
    with pytest.raises(PreconditionError, match="parent is missing"):
        place.registry.fetch_base(2)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Place(elsewhere).full("another")
    for path in (elsewhere / "store/checkpoints/student/1").iterdir():
        place.store.write_bytes(f"checkpoints/student/1/{path.name}", path.read_bytes())
    assert place.registry.verify(1)
    with pytest.raises(PreconditionError, match="another checkpoint than the version 1 here"):
        place.registry.fetch_base(2)


def test_a_parents_changed_byte_is_found(place: Place) -> None:
    place.lora(1)
    place.store.write_bytes("checkpoints/student/1/config.json", b"other")
    place.registry.fetch(2)
    with pytest.raises(DataCorruptedError, match=r"1/config\.json"):
        place.registry.fetch_base(2)


def test_manifests_of_before_adapters_are_still_read(place: Place) -> None:
    path = place.folder / "store/checkpoints/student/1/manifest.json"
    payload: dict[str, Any] = json.loads(path.read_text())
    assert payload.pop("parent_digest") == ""
    path.write_text(json.dumps(payload))
    manifest = place.registry.get(1)
    assert manifest.parent_digest == "" and Manifest.from_json(manifest.to_json()) == manifest


def test_what_failed_while_it_served_is_remembered_until_it_is_promoted_again(place: Place) -> None:
    for key in ("two", "three"):
        place.full(key)
    registry = place.registry
    for version in (1, 2, 3):
        registry.set_serving(version, "swap")
    assert registry.rejected() == set() and registry.previous() == 2
    registry.set_serving(1, "version 3 rolled back: half of its answers failed", rejected=3)
    assert registry.rejected() == {3}
    assert registry.history()[-1].reason == "version 3 rolled back: half of its answers failed"
    assert registry.previous() is None, "version 2 was passed over"
    registry.set_serving(3, "swap")
    assert registry.rejected() == set() and registry.previous() == 1


def test_a_rejected_version_is_none_to_roll_back_to(place: Place) -> None:
    place.full("two")
    for version in (1, 2):
        place.registry.set_serving(version, "swap")
    place.registry.set_serving(1, "version 2 rolled back: its canary fails", rejected=2)
    assert place.registry.previous() is None


def test_histories_of_before_are_still_read(place: Place) -> None:
    history = [{"version": 1, "at": "2026-01-01T00:00:00.000+00:00", "reason": "start"}]
    place.store.write_json("checkpoints/student/serving.json", {"version": 1, "history": history})
    assert place.registry.serving() == 1 and place.registry.rejected() == set()
