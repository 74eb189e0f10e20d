"""Fine-tuned folders become versions of the registry, adapters with their bases, and nothing else does."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.finetune_kit import make_records, run, settings
from tests.fullsize_kit import picture, tiny_family
from tests.lora_kit import make_adapter
from tests.student_kit import tiny_student
from trainer.pieces import NO_TRAINING
from trainer.plans import make_plan
from trainer.recipes import Recipe
from trainer.sft_config import SftConfig
from trainer.stages import train_student
from trainer.submitting import Submitted, submit
from world2vlm.adapters import whole
from world2vlm.base_student import BASE_STUDENT
from world2vlm.checkpoints import Registry
from world2vlm.cli import build_app
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError
from world2vlm.fullsize import ADAPTER, add, is_fullsize
from world2vlm.rounds import list_rounds
from world2vlm.store import Store
from world2vlm.vlm import Prompt, StudentModel
from world2vlm.vlm.fullsize.student import FamilyStudent
from world2vlm.vlm.loading import load_student
from world2vlm.vlm.student import load_processor

PROMPT = Prompt((picture(1),), "Where is the red chair?")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Store(tmp_path / "store"), "student")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind, its prepared pictures included."""
    folder = tmp_path_factory.mktemp("run")
    records = make_records(folder / "images", 6)
    run(settings(tiny_family("llava"), steps=2, learning_rate=0.1), records, folder / "images", folder / "out")
    (folder / "out/recipe.json").write_text(json.dumps({"name": "mine"}))
    return folder / "out"


def copy(folder: Path, out: Path) -> Path:
    return Path(shutil.copytree(folder, out))


def test_what_a_checkpoint_is_is_told_by_its_files(tmp_path: Path) -> None:
    assert is_fullsize(tiny_family("qwen3_vl")) and is_fullsize(tiny_family("llava"))
    assert not is_fullsize(tiny_student()) and not is_fullsize(BASE_STUDENT)
    assert not is_fullsize(tmp_path) and not is_fullsize(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[")
    assert not is_fullsize(tmp_path)
    assert isinstance(load_student(tiny_student()), StudentModel)
    assert isinstance(load_student(tiny_family("qwen3_vl")), FamilyStudent)


def test_a_full_model_becomes_a_version_once(registry: Registry) -> None:
    folder = tiny_family("qwen2_5_vl")
    manifest = add(registry, folder)
    assert (manifest.kind, manifest.parent, manifest.recipe) == ("full", None, "added")
    assert add(registry, folder) == manifest and registry.versions() == [manifest.version]
    with whole(registry, manifest.version) as fetched:
        assert load_student(fetched).answer([PROMPT], 6) == FamilyStudent.load(folder).answer([PROMPT], 6)


def test_an_adapter_becomes_a_version_behind_its_base(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    manifest = add(registry, adapter)
    assert (manifest.kind, manifest.parent, manifest.recipe) == ("lora", 1, "mine")
    assert add(registry, adapter) == manifest and registry.versions() == [1, 2]
    base = registry.get(1)
    assert base.kind == "full" and manifest.parent_digest == base.digest
    with whole(registry, 2) as both:
        assert {path.name for path in (both / ADAPTER).iterdir()} >= {"adapter_model.safetensors"}
        assert all(path.is_symlink() for path in both.iterdir() if path.name != ADAPTER), "nothing large is written"
        adapted = load_student(both).answer([PROMPT], 6)
    assert not both.exists()
    with whole(registry, 1) as plain:
        assert load_student(plain).answer([PROMPT], 6)[0].probability != pytest.approx(adapted[0].probability)


def test_an_adapter_of_another_base_is_refused_when_it_is_loaded(registry: Registry, adapter: Path) -> None:
    add(registry, tiny_family("idefics3"))
    published = registry.publish(adapter, parent=1, kind="lora", dataset_digest="", recipe="", metrics={}, key="misfit")
    with whole(registry, published.version) as both, pytest.raises(InvalidInputError, match="does not fit its parent"):
        load_student(both)


def test_a_round_trains_no_full_size_model(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    recipe = Recipe("tiny", "", sft=SftConfig(steps=1))
    records = make_records(tmp_path, 6)
    for version in (add(registry, tiny_family("qwen3_vl")).version, add(registry, adapter).version):
        with whole(registry, version) as folder, pytest.raises(InvalidInputError, match="built-in students only"):
            train_student(recipe, folder, records, tmp_path, tmp_path / "work")


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_round_for_a_full_size_model_is_refused_before_the_teacher_works(
    kind: str, registry: Registry, adapter: Path, tmp_path: Path
) -> None:
    store, round_ = Store(tmp_path / "store"), make_plan("round", student="student")
    served = add(registry, adapter if kind == "adapter" else tiny_family("qwen3_vl"))
    assert served.kind == ("lora" if kind == "adapter" else "full")
    assert submit(store, None, make_plan("early", student="student")) == Submitted(
        is_new=True, is_sent=False
    )  # none serves
    registry.set_serving(served.version, "test")
    with pytest.raises(InvalidInputError) as caught:
        submit(store, None, round_)
    assert list_rounds(store) == ["early"]
    with whole(registry, served.version) as folder, pytest.raises(InvalidInputError) as late:
        load_processor(folder)
    assert str(caught.value) == str(late.value) and "built-in students only" in str(late.value)
    # A job that trains nobody needs no student.
    submit(store, None, make_plan("job", student="student", recipe=NO_TRAINING))
    assert list_rounds(store) == ["early", "job"]


def test_a_round_for_a_built_in_student_or_its_adapter_is_taken(registry: Registry, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    asked: dict[str, Any] = {"dataset_digest": "", "recipe": "", "metrics": {}}
    registry.publish(tiny_student(), parent=None, kind="full", key="base", **asked)
    make_adapter(tmp_path / "adapter", tiny_student())
    registry.publish(tmp_path / "adapter", parent=1, kind="lora", key="adapter", **asked)
    for version in (1, 2):
        registry.set_serving(version, "test")
        submit(store, None, make_plan(f"round-{version}", student="student"))
    assert list_rounds(store) == ["round-1", "round-2"]
    (tmp_path / "store/checkpoints/student/1/config.json").write_text("{}")
    with pytest.raises(DataCorruptedError, match=r"1/config\.json: differs from the manifest"):
        submit(store, None, make_plan("round-3", student="student"))


@pytest.mark.parametrize("name", ["model.bin", "training_args.pt", "modeling.py", "optimizer.pkl"])
def test_pickles_and_code_are_no_part_of_a_checkpoint(registry: Registry, tmp_path: Path, name: str) -> None:
    folder = copy(tiny_family("qwen2_5_vl"), tmp_path / "folder")
    (folder / name).write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=name):
        add(registry, folder)
    assert registry.versions() == []


def test_folders_without_a_model_are_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such folder"):
        add(registry, tmp_path / "nowhere")
    (tmp_path / "README.md").touch()
    with pytest.raises(InvalidInputError, match="no weights"):
        add(registry, copy(tmp_path, tmp_path.with_name("copy")))
    with pytest.raises(InvalidInputError, match="not a model of transformers"):
        add(registry, tiny_student())
    nested = copy(tiny_family("llava"), tmp_path / "nested")
    (nested / "checkpoint-10").mkdir()
    with pytest.raises(InvalidInputError, match="checkpoint-10"):
        add(registry, nested)


def test_a_base_must_be_named_and_at_hand(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    folder = copy(adapter, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    for name, error, text in (
        ("nobody/such-a-model", NotFoundError, "hf download nobody/such-a-model"),
        ("/nowhere/at/all", NotFoundError, "not on this machine"),
        (None, InvalidInputError, "does not name"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": name}))
        with pytest.raises(error, match=text):
            add(registry, folder)
    assert registry.versions() == []


def test_a_base_in_the_hubs_cache_is_found(
    registry: Registry, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub/models--someone--tiny"
    copy(tiny_family("llava"), cached / "snapshots/abc")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = copy(adapter, tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "someone/tiny"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert add(registry, folder).parent == 1


def test_the_command_says_what_it_published(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD2VLM_STORE", str(tmp_path / "store"))
    result = CliRunner().invoke(build_app(), ["checkpoints", "add", str(adapter)])
    assert result.exit_code == 0, result.output
    assert "version 2, an adapter for version 1" in result.output
