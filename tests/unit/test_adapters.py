"""Checkpoints as whole ones, whether they were published whole or as an adapter."""

import tempfile
from pathlib import Path

import pytest
import torch

from tests.lora_kit import make_adapter
from tests.student_kit import publish, tiny_student
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.errors import DataCorruptedError, NotFoundError, PreconditionError
from world2vlm.store import Store
from world2vlm.vlm import StudentModel


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with a full checkpoint, whose temporary files lie in a folder of their own."""
    publish(tmp_path / "store", tiny_student(), "base")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return Registry(Store(tmp_path / "store"), "student")


def publish_adapter(registry: Registry, folder: Path) -> int:
    return registry.publish(
        folder, parent=1, kind="lora", dataset_digest="", recipe="lora", metrics={}, key="adapter"
    ).version


def test_a_full_checkpoint_is_its_own_folder(registry: Registry) -> None:
    with whole(registry, 1) as folder:
        assert folder == registry.fetch(1)


def test_an_adapter_is_merged_for_as_long_as_it_is_needed(registry: Registry, tmp_path: Path) -> None:
    expected = make_adapter(tmp_path / "adapter", tiny_student())
    version = publish_adapter(registry, tmp_path / "adapter")
    with whole(registry, version) as folder:
        found = StudentModel.load(folder).model.state_dict()
    for name, weight in expected.model.state_dict().items():
        assert torch.equal(found[name], weight), name
    assert not folder.exists()
    assert not list((tmp_path / "temporary").iterdir())


def test_an_adapter_of_another_shape_is_unfit(registry: Registry, tmp_path: Path) -> None:
    make_adapter(tmp_path / "adapter", tiny_student())
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 5'))
    version = publish_adapter(registry, tmp_path / "adapter")
    with pytest.raises(PreconditionError, match="unfit"), whole(registry, version):
        pass
    assert not list((tmp_path / "temporary").iterdir())


def test_what_is_missing_or_spoiled_is_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError), whole(registry, 7):
        pass
    weights = tmp_path / "store/checkpoints/student/1/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(DataCorruptedError, match="model"), whole(registry, 1):
        pass
