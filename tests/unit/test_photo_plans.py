"""How rounds on photographs begin: by a command, or by night."""

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.photo_kit import save_flat
from tests.teacher_kit import StepWorld, serving
from trainer.cli import register
from trainer.gathering import gather
from trainer.nightly import plan_of_night
from trainer.photo_data import check_labelled, drop_untrained, missing_tasks, silent_places
from trainer.plans import make_plan
from trainer.sources import Photograph
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.records import TaskRecord
from world2vlm.rounds import RoundPlan, RoundState, list_rounds
from world2vlm.settings import TrainerSettings
from world2vlm.store import Store

DAY = date(2026, 1, 31)
Start = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shade in range(4):
        save_flat(tmp_path / f"photos/place {shade}/1.png", 50 * shade)
    return tmp_path / "photos"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def start(store: Store, monkeypatch: pytest.MonkeyPatch) -> Start:
    """The command `rounds start`, on the store, with no broker to tell."""
    monkeypatch.setenv("WORLD2VLM_STORE", str(store.root))
    monkeypatch.setenv("WORLD2VLM_TEACHER_URL", "127.0.0.1:1")
    app = typer.Typer()
    register(app, typer.Typer())
    return lambda *arguments: CliRunner().invoke(app, ["rounds", "start", *map(str, arguments)])


def test_a_command_starts_a_round_on_a_folder(start: Start, store: Store, folder: Path) -> None:
    (folder / "notes.txt").write_text("buy film")
    result = start("--photos", folder, "--fov", 70, "--id", "mine")
    assert result.exit_code == 0, result.output
    assert "left out: 1 file(s)" in result.stderr and "notes.txt" in result.stderr
    assert "4 photographs of 4 scenes" in result.stderr
    state = RoundState(store, "mine")
    assert state.plan().world == "geometric" and state.status() == "imagine"
    assert {anchor.fov_deg for shard in state.shards() for anchor in shard.photos} == {70}


def test_a_world_without_photos_is_refused_before_anything_is_read(start: Start, store: Store, folder: Path) -> None:
    result = start("--photos", folder, "--world", "renderer")
    assert isinstance(result.exception, InvalidInputError) and "such as geometric" in str(result.exception)
    assert store.list() == []


def test_a_misspelt_world_is_refused_before_anything_is_stored(
    start: Start, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(StepWorld()) as url:
        monkeypatch.setenv("WORLD2VLM_TEACHER_URL", url)
        for arguments in (("--photos", folder, "--world", "step"), ("--world", "step")):
            result = start(*arguments)
            assert isinstance(result.exception, NotFoundError)
            assert "no world 'step'; it has steps" in str(result.exception)
        assert store.list() == []
        assert start("--photos", folder, "--world", "steps", "--id", "right").exit_code == 0
    assert list_rounds(store) == ["right"]


def test_where_no_teacher_answers_the_world_is_not_checked(start: Start, store: Store) -> None:
    result = start("--world", "step", "--id", "later")
    assert result.exit_code == 0 and list_rounds(store) == ["later"]
    assert "no teacher answers at 127.0.0.1:1: its world 'step' was not checked" in result.stderr


def test_a_field_of_view_belongs_to_photographs(start: Start, store: Store) -> None:
    result = start("--fov", 70)
    assert result.exit_code == 2 and "--photos" in result.output
    assert store.list() == []


def test_rooms_start_as_ever(start: Start, store: Store) -> None:
    assert start("--id", "rooms").exit_code == 0
    assert RoundState(store, "rooms").plan() == RoundPlan("rooms")


def test_a_round_that_exists_is_not_started_again(start: Start, store: Store) -> None:
    first = start("--id", "rooms")
    assert first.stdout == f"rooms (no broker answers: it begins when a worker starts on the store {store.root})\n"
    files = store.list()
    again = start("--id", "rooms")
    assert (again.exit_code, again.stdout) == (0, "round rooms exists already: not started again\n")
    assert store.list() == files
    assert "exists with another plan" in str(start("--id", "rooms", "--seed", 8).exception)


def test_plans_take_the_world_that_ships_unless_another_is_named() -> None:
    digest = "ab" * 32
    assert make_plan("r", student="student").world == "renderer"
    assert make_plan("r", student="student", photos=digest).world == "geometric"
    assert make_plan("r", student="student", photos=digest, world="svc").world == "svc"
    with pytest.raises(InvalidInputError, match="takes no photos"):
        make_plan("r", student="student", photos=digest, world="renderer")


def test_a_night_imagines_rooms_unless_the_settings_name_a_folder(store: Store) -> None:
    plan = plan_of_night(TrainerSettings(), store, DAY)
    assert (plan.id, plan.world, plan.photos) == ("nightly-20260131", "renderer", "")
    assert store.list() == []


def test_a_night_gathers_the_photographs_of_its_day(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = TrainerSettings(nightly_photos=folder, nightly_fov_deg=70)
    with caplog.at_level(logging.INFO):
        first = plan_of_night(settings, store, DAY)
    assert first.photos == gather(store, folder, 70).collection.digest and first.world == "geometric"
    assert "4 photographs of 4 scenes" in caplog.text
    save_flat(folder / "place 9/1.png", 77)
    second = plan_of_night(settings, store, date(2026, 2, 1))
    assert second.photos != first.photos and second.seed == first.seed + 1


def test_a_night_whose_folder_is_empty_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no folder"):
        plan_of_night(TrainerSettings(nightly_photos=tmp_path / "gone"), store, DAY)
    assert list_rounds(store) == []


def record(task: str) -> TaskRecord:
    return TaskRecord.create(task, "?", "x", ["a.png"], {"scene": "s"})


def test_tasks_that_nobody_trains_are_not_asked() -> None:
    splits = {"train": [record("A1")], "calibration": [record("D1")], "test": [record("A1"), record("D2")]}
    kept = drop_untrained(splits)
    assert kept == {"train": [record("A1")], "calibration": [], "test": [record("A1")]}
    assert missing_tasks(kept) == ["A2", "A3", "A4", "D1", "D2", "D3", "D4"]
    check_labelled(kept, {})


def test_held_out_places_without_questions_say_why(start: Start, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for shade in range(20):
        save_flat(folder / f"place {shade:02d}/1.png", 10 * shade)
    start("--photos", folder, "--id", "mine", "--scenes-per-shard", 2)
    state = RoundState(store, "mine")
    held_out = [shard for shard in state.shards() if shard.split == "test"]
    kept, *_ = [anchor.scene for shard in held_out for anchor in shard.photos]
    for shard in held_out:
        names = [Photograph(anchor).scene for anchor in shard.photos if anchor.scene == kept]
        state.write_shard(shard.index, [], {"bundles": [f"scenes/{name}/traj_0" for name in names]})
    said = silent_places(state)
    assert len(said) >= 5
    assert [why for why in said.values() if "kept" in why] == [f"no question about {kept} was kept"]
    assert sum(why.startswith("every view of place ") for why in said.values()) == len(said) - 1


@pytest.mark.parametrize(("empty", "said"), [(("test",), "split test "), (("train", "test"), "split train or test ")])
def test_where_nothing_could_be_labelled_the_gates_are_named(empty: tuple[str, ...], said: str) -> None:
    splits = {name: [] if name in empty else [record("A1")] for name in ("train", "calibration", "test")}
    with pytest.raises(InvalidInputError, match=f"{said}could be labelled.*7 by collision, 2 by proof.*--fov"):
        check_labelled(splits, {"proof": 2, "collision": 7})
