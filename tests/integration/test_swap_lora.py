"""LoRA checkpoints through a real service: published, verified, swapped in under load, rolled back, refused."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from student_service.app import App
from tests.lora_kit import make_adapter
from tests.student_kit import picture, png, publish, running_student, tiny_student
from world2vlm.checkpoints import Registry
from world2vlm.client import Student
from world2vlm.errors import DataCorruptedError, PreconditionError
from world2vlm.store import Store
from world2vlm.vlm import Prompt, StudentModel

pytestmark = pytest.mark.alone

QUESTIONS = ("Where is the red chair?", "Is there a blue sofa?", "How many tables are on the left?")
TOKENS = 6


def texts(student: StudentModel) -> list[str]:
    prompts = [Prompt((picture(),), question) for question in QUESTIONS]
    return [generation.text for generation in student.answer(prompts, TOKENS)]


def ask_all(client: Student) -> tuple[list[str], set[str]]:
    replies = [client.ask(question, [png()], TOKENS) for question in QUESTIONS]
    return [reply.text for reply in replies], {reply.version for reply in replies}


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[App, Student]]:
    """A service on version 1, whose temporary files lie in a folder of their own."""
    (tmp_path / "temporary").mkdir()
    with running_student(tmp_path / "store") as (app, client):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        yield app, client


def publish_adapter(registry: Registry, folder: Path, key: str) -> int:
    return registry.publish(
        folder, parent=1, kind="lora", dataset_digest="", recipe="lora", metrics={"held_out": 0.5}, key=key
    ).version


def test_an_adapter_is_swapped_in_and_rolled_back(service: tuple[App, Student], tmp_path: Path) -> None:
    app, client = service
    merged = [make_adapter(tmp_path / f"adapter {seed}", tiny_student(), seed) for seed in (3, 4)]
    first, second = texts(StudentModel.load(tiny_student())), [texts(student) for student in merged]
    assert first != second[0] != second[1]
    for seed in (3, 4):
        publish_adapter(app.registry, tmp_path / f"adapter {seed}", f"adapter {seed}")
    assert app.registry.verify(2).kind == "lora"
    assert ask_all(client) == (first, {"1"})
    assert client.swap(2)["to"] == 2
    assert ask_all(client) == (second[0], {"2"})
    serving = client.serving()
    assert (serving.version, serving.kind, serving.parent_version) == (2, "lora", 1)
    assert client.swap(3)["to"] == 3  # from adapter to adapter: each on the parent, never on one another
    assert ask_all(client) == (second[1], {"3"})
    assert client.roll_back()["to"] == 2 and ask_all(client) == (second[0], {"2"})
    assert client.roll_back()["to"] == 1 and ask_all(client) == (first, {"1"})
    assert list((tmp_path / "temporary").iterdir()) == [], "no merged weights are left behind"
    assert client.swap(2)["to"] == 2
    with running_student(tmp_path / "store") as (_, restarted):
        assert ask_all(restarted) == (second[0], {"2"})


def test_a_spoiled_adapter_or_parent_is_refused(service: tuple[App, Student], tmp_path: Path) -> None:
    app, client = service
    make_adapter(tmp_path / "adapter", tiny_student())
    publish_adapter(app.registry, tmp_path / "adapter", "adapter")
    root = tmp_path / "store/checkpoints/student"
    for path in (root / "2/adapter_model.safetensors", root / "1/model.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataCorruptedError, match=path.name.replace(".", r"\.")):
            client.swap(2)
        content[-1] ^= 1
        path.write_bytes(content)
    # The same number in another registry: a whole checkpoint, and not the one that the adapter was trained on.
    elsewhere = Registry(Store(tmp_path / "elsewhere"), "student")
    assert publish(tmp_path / "elsewhere", tiny_student(), "same weights, another checkpoint") == 1
    (root / "1/manifest.json").write_bytes((tmp_path / "elsewhere/checkpoints/student/1/manifest.json").read_bytes())
    assert elsewhere.verify(1) and app.registry.verify(1)
    with pytest.raises(PreconditionError, match="adapter for another checkpoint"):
        client.swap(2)
    assert ask_all(client)[1] == {"1"}


def test_an_adapter_that_does_not_fit_is_unfit(service: tuple[App, Student], tmp_path: Path) -> None:
    app, client = service
    make_adapter(tmp_path / "adapter", tiny_student())
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 5'))
    publish_adapter(app.registry, tmp_path / "adapter", "adapter")
    with pytest.raises(PreconditionError, match=r"unfit.*does not fit"):
        client.swap(2)
    assert ask_all(client)[1] == {"1"}
    assert list((tmp_path / "temporary").iterdir()) == []
