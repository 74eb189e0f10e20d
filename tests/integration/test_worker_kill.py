"""A whole round with a tiny student: trained by a real worker that is killed while it trains."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lora_kit import make_adapter
from tests.round_kit import create, kill, teacher, wait_for, wait_until_over, worker
from tests.student_kit import publish, tiny_student
from trainer.plans import make_plan
from world2vlm.broker import EmbeddedBroker
from world2vlm.checkpoints import Registry
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.store import Store

pytestmark = pytest.mark.alone

STEPS = 35  # the recipe takes a snapshot every 10


@pytest.fixture(scope="module")
def teacher_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with teacher(tmp_path_factory.mktemp("teacher")) as url:
        yield url


def plan() -> RoundPlan:
    return make_plan(
        "r", student="student", train_scenes=6, test_scenes=2, calibration_scenes=2, trajectories_per_scene=2,
        scenes_per_shard=2, recipe="smoke", steps=STEPS,
    )  # fmt: skip


def start(folder: Path) -> RoundState:
    """A round from version 2, a LoRA adapter; version 1 is there to be promoted by somebody else meanwhile."""
    state, registry = create(folder, plan()), Registry(Store(folder / "store"), "student")
    base = publish(folder / "store", tiny_student(), "base")
    make_adapter(folder / "adapter", tiny_student())
    adapter = registry.publish(
        folder / "adapter", parent=base, kind="lora", dataset_digest="", recipe="test", metrics={}, key="adapter"
    )
    registry.set_serving(adapter.version, "test")
    return state


@pytest.fixture(scope="module")
def undisturbed(teacher_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a round that nothing happened to, but that another version serves when its training is done."""
    folder = tmp_path_factory.mktemp("undisturbed")
    state = start(folder)
    with EmbeddedBroker(folder / "broker") as broker, worker(folder, broker.url, teacher_url, threads=1) as process:
        wait_for(lambda: state.read_step("training"), "training is done")
        Registry(Store(folder / "store"), "student").set_serving(1, "test")
        wait_until_over(state, process, folder)
    return folder


def test_a_round_trains_evaluates_and_leaves_a_version_that_took_over_serving(undisturbed: Path) -> None:
    state = RoundState(Store(undisturbed / "store"), "r")
    registry = Registry(Store(undisturbed / "store"), "student")
    dataset, training = state.read_step("dataset"), state.read_step("training")
    evaluation, promotion = state.read_step("evaluation"), state.read_step("promotion")
    assert dataset and training and evaluation and promotion
    child = registry.verify(training["version"])
    assert (child.version, child.parent, child.dataset_digest) == (3, 2, dataset["digest"])
    assert set(evaluation["after"]) == set(evaluation["before"]) >= {"A1", "D1", "macro"}
    assert evaluation["samples"] and all(sample["truth"] for sample in evaluation["samples"])
    # Whatever the gate thought of it: it was held against version 2, which serves no longer.
    assert promotion["promoted"] is False and "but 1 serves now" in promotion["reasons"][-1]
    assert promotion["reasons"][:-1] == evaluation["decision"]["reasons"]
    assert registry.serving() == 1


def test_a_worker_killed_while_training_continues_to_the_same_weights(
    undisturbed: Path, teacher_url: str, tmp_path: Path
) -> None:
    state, store = start(tmp_path), Store(tmp_path / "store")

    def has_snapshot() -> bool:
        return any((tmp_path / "store" / ".work").rglob("snapshot.safetensors"))

    with EmbeddedBroker(tmp_path / "broker") as broker:
        with worker(tmp_path, broker.url, teacher_url, threads=1) as process:
            wait_for(has_snapshot, "training took a snapshot")
            kill(process)
            assert state.status() == "distil"
        with worker(tmp_path, broker.url, teacher_url, threads=1):
            wait_for(lambda: state.read_step("training"), "training is done")
    once = Registry(Store(undisturbed / "store"), "student").get(3)
    again = Registry(store, "student").list()
    assert [manifest.version for manifest in again] == [1, 2, 3]
    assert again[2].files == once.files
