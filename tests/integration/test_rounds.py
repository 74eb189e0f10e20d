"""A job of imagining and labelling with a real broker, a real worker and a real teacher over a socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import typer
from typer.testing import CliRunner

from tests.round_kit import content, create_job, kill, kill_broker, teacher, wait_for, wait_until_over, worker
from trainer.cli import register
from trainer.pieces import Piece
from trainer.services import StudentControl, TeacherService
from trainer.steps import RoundSteps
from trainer.submitting import submit
from trainer.tracking import Tracking
from world2vlm.broker import EmbeddedBroker, broker_folder, running_url
from world2vlm.datasets import load_dataset
from world2vlm.records import read_records
from world2vlm.rounds import RoundState
from world2vlm.settings import TrainerSettings
from world2vlm.store import Store
from world2vlm.tasks import TASKS

pytestmark = pytest.mark.alone

RESULTS = ("rounds/job/shards", "rounds/job/dataset.json", "bundles", "datasets")


@pytest.fixture(scope="module")
def teacher_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with teacher(tmp_path_factory.mktemp("teacher")) as url:
        yield url


@pytest.fixture(scope="module")
def undisturbed(teacher_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    state = create_job(folder)
    with EmbeddedBroker(folder / "broker") as broker, worker(folder, broker.url, teacher_url) as process:
        wait_until_over(state, process, folder)
    return folder


def test_a_job_imagines_labels_and_publishes(undisturbed: Path) -> None:
    store = Store(undisturbed / "store")
    result = RoundState(store, "job").read_step("dataset")
    assert result is not None
    dataset = load_dataset(store, result["digest"])
    assert result["bundles"] == 14
    assert result["records"] == sum(map(len, dataset.splits.values())) > 50
    assert set(result["by_task"]) == {"A1", "A2", "A3", "A4", "D1", "D2", "D3", "D4"}
    scenes = {name: {record.meta["scene"] for record in records} for name, records in dataset.splits.items()}
    assert len(scenes["train"]) == 4 and len(scenes["test"]) == 2
    assert len(scenes["calibration"]) == 1
    assert len(set().union(*scenes.values())) == 7
    for record in dataset.splits["train"]:
        assert all((undisturbed / "store/bundles" / image).is_file() for image in record.images)


def test_a_killed_worker_loses_nothing_and_doubles_nothing(undisturbed: Path, teacher_url: str, tmp_path: Path) -> None:
    state = create_job(tmp_path)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        with worker(tmp_path, broker.url, teacher_url) as process:
            wait_for(lambda: len(state.missing_shards()) < 7, "a shard is done")
            kill(process)
            assert state.missing_shards()
        with worker(tmp_path, broker.url, teacher_url) as process:
            wait_until_over(state, process, tmp_path)
    assert content(tmp_path, *RESULTS) == content(undisturbed, *RESULTS)


def test_a_killed_broker_loses_nothing_and_doubles_nothing(undisturbed: Path, teacher_url: str, tmp_path: Path) -> None:
    state = create_job(tmp_path)
    with EmbeddedBroker(tmp_path / "broker") as broker, worker(tmp_path, broker.url, teacher_url) as process:
        wait_for(lambda: len(state.missing_shards()) < 7, "a shard is done")
        kill_broker(broker)
        assert state.missing_shards()
        wait_until_over(state, process, tmp_path)
    assert content(tmp_path, *RESULTS) == content(undisturbed, *RESULTS)


def test_a_broker_that_comes_back_empty_loses_nothing(undisturbed: Path, teacher_url: str, tmp_path: Path) -> None:
    state = create_job(tmp_path)
    with EmbeddedBroker(tmp_path / "broker") as broker, worker(tmp_path, broker.url, teacher_url) as process:
        wait_for(lambda: len(state.missing_shards()) < 7, "a shard is done")
        with redis.Redis.from_url(broker.url) as client:
            client.flushall()
        kill_broker(broker)
        wait_until_over(state, process, tmp_path)
    assert content(tmp_path, *RESULTS) == content(undisturbed, *RESULTS)


def test_every_step_done_twice_writes_the_same_files(undisturbed: Path, teacher_url: str, tmp_path: Path) -> None:
    state, store = create_job(tmp_path), Store(tmp_path / "store")
    settings = TrainerSettings.load(store=str(tmp_path / "store"), teacher_url=teacher_url)
    steps = RoundSteps(
        store,
        TeacherService(settings),
        StudentControl(settings),
        threads=1,
        patience_s=10,
        work=tmp_path / "work",
        tracking=Tracking(),
    )
    for piece in [*(Piece("job", "imagine", index) for index in range(7)), Piece("job", "dataset")]:
        steps.do(piece)
        result = state.shard_path(piece.index) if piece.step == "imagine" else "rounds/job/dataset.json"
        first = content(tmp_path, result)
        store.delete(result)
        steps.do(piece)
        assert content(tmp_path, result) == first
    assert content(tmp_path, *RESULTS) == content(undisturbed, *RESULTS)


def test_label_writes_records_whose_images_are_there(undisturbed: Path, tmp_path: Path) -> None:
    app, out = typer.Typer(), tmp_path / "tasks.jsonl"
    register(app, typer.Typer())
    bundles = undisturbed / "store/bundles"
    result = CliRunner().invoke(app, ["label", str(bundles), "--out", str(out)])
    assert result.exit_code == 0, result.output
    records = read_records(out)
    assert {record.task_type for record in records} == set(TASKS)
    assert all((tmp_path / image).is_file() for record in records for image in record.images)
    balanced = CliRunner().invoke(app, ["label", str(bundles), "--balance", "--out", str(out)])
    assert balanced.exit_code == 0 and 0 < len(read_records(out)) < len(records)


def test_a_round_started_while_no_broker_runs_begins_with_the_worker(teacher_url: str, tmp_path: Path) -> None:
    state = create_job(tmp_path)
    store = Store(tmp_path / "store")
    assert submit(store, None, state.plan()).is_sent is False
    folder = broker_folder(str(store.root))
    with EmbeddedBroker(folder):
        assert submit(store, None, state.plan()).is_sent is True
        url = running_url(folder)
        assert url is not None
        with redis.Redis.from_url(url) as client:
            assert client.llen("light") == 1
