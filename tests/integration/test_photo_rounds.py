"""Whole rounds on photographs: crops of real panoramas, the geometric world, a real student that is swapped or not."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from student_service.app import App
from teacher_service.app import in_background
from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.geometric import GeometricOptions, GeometricWorld
from tests.photo_kit import PLACES, save_places
from tests.student_kit import TOKEN, running_student
from tests.teacher_kit import StepWorld, serving
from trainer.evaluating import evaluate_checkpoint
from trainer.gathering import gather
from trainer.pieces import NO_TRAINING, missing_pieces
from trainer.plans import make_plan
from trainer.services import StudentControl, TeacherService
from trainer.steps import RoundSteps
from trainer.tracking import Tracking
from trainer.watching import outcome
from world2vlm.boxes import Box
from world2vlm.bundles import REJECTED, Frame, ObjectView, find_bundles, read_bundle
from world2vlm.datasets import Dataset, load_dataset
from world2vlm.errors import InvalidInputError, NotFoundError, PreconditionError
from world2vlm.licences import Policy
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.settings import TeacherSettings, TrainerSettings
from world2vlm.store import Store
from world2vlm.tasks import TASKS

pytestmark = pytest.mark.alone

A_TASKS, D_TASKS = {"A1", "A2", "A3", "A4"}, ["D1", "D2", "D3", "D4"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographs of each of four places, and a file that is none."""
    folder = save_places(tmp_path_factory.mktemp("photos"))
    (folder / PLACES[0] / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


@pytest.fixture(scope="module")
def teacher_url() -> Iterator[str]:
    """The real teacher; its geometric world fills what a photo does not show smoothly, which is ten times as fast."""
    settings = TeacherSettings(port=0, metrics_port=-1, world_options={"geometric": {"inpaint_model": "none"}})
    with in_background(settings) as port:
        yield f"127.0.0.1:{port}"


class Site:
    """A store with what works on it."""

    def __init__(self, folder: Path, teacher_url: str, student_url: str = "", policy: Policy | None = None) -> None:
        settings = TrainerSettings.load(
            store=str(folder / "store"), teacher_url=teacher_url, student_url=student_url, control_token=TOKEN
        )
        self.store = Store(settings.store)
        self._steps = RoundSteps(
            self.store,
            TeacherService(settings),
            StudentControl(settings),
            threads=1,
            patience_s=20,
            work=folder / "work",
            tracking=Tracking(),
            policy=policy or settings.policy,
        )

    def do_next(self, state: RoundState) -> None:
        """Do the first piece that is missing."""
        self._steps.do(missing_pieces(state.plan(), state)[0])

    def run(self, photos: Path, **changes: object) -> RoundState:
        """Gather a folder and run a round on it, piece by piece as the workers do."""
        digest = gather(self.store, photos).collection.digest
        state = create(self.store, digest, **changes)
        while missing_pieces(state.plan(), state):
            self.do_next(state)
        return state

    def dataset(self, state: RoundState) -> Dataset:
        return load_dataset(self.store, (state.read_step("dataset") or {})["digest"])


def create(store: Store, digest: str, **changes: object) -> RoundState:
    given = {"student": "student", "photos": digest, "trajectories_per_scene": 2, "scenes_per_shard": 3}
    plan = make_plan("night", **{**given, **changes})  # type: ignore[arg-type]
    assert RoundPlan.from_json(plan.to_json()) == plan
    state = RoundState(store, plan.id)
    state.create(plan)
    return state


@pytest.fixture(scope="module")
def finished(photos: Path, teacher_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, App]]:
    """A whole round, with a real student that served all the while."""
    folder = tmp_path_factory.mktemp("finished")
    with ExitStack() as stack:
        app, client = stack.enter_context(running_student(folder / "store"))
        site = Site(folder, teacher_url, client.url)
        site.run(photos, recipe="smoke")
        yield site, app


def test_a_round_on_photographs_goes_through_every_step(finished: tuple[Site, App]) -> None:
    site, _ = finished
    state = RoundState(site.store, "night")
    dataset = site.dataset(state)
    assert set(dataset.by_task) == A_TASKS
    scenes = {name: {record.meta["scene"] for record in records} for name, records in dataset.splits.items()}
    assert len(set().union(*scenes.values())) == sum(map(len, scenes.values())) == len(PLACES)
    assert dataset.info["missing_tasks"] == D_TASKS and dataset.info["world"] == "geometric"
    evaluation = state.read_step("evaluation") or {}
    assert set(evaluation["after"]) == {*A_TASKS, "macro"}
    # Nobody looked for objects: what is said of forgetting is nothing, not "all of it".
    assert evaluation["probes"] == {"before": {}, "after": {}}
    training, promotion = state.read_step("training") or {}, state.read_step("promotion") or {}
    assert training["parent"] == 1 and training["version"] == 2
    assert promotion["promoted"] is False
    assert promotion["reasons"][0].startswith("1 held-out place(s) are too few to be certain")
    assert outcome(state).endswith("no held-out questions of the tasks D1, D2, D3, D4")


def test_one_held_out_place_scores_without_an_interval(finished: tuple[Site, App]) -> None:
    site, app = finished
    (_, *rows), figures = evaluate_checkpoint(site.store, app.registry, 2, "")
    assert figures["scenes"] == 1 and {row[0] for row in rows} == {*A_TASKS, "macro"}
    assert {row[3] for row in rows} == {"one scene"}
    after = (RoundState(site.store, "night").read_step("evaluation") or {})["after"]
    assert {row[0]: row[2] for row in rows} == {task: f"{side['score']:.3f}" for task, side in after.items()}


def test_only_proven_key_frames_are_labelled(finished: tuple[Site, App]) -> None:
    site, _ = finished
    kept = [read_bundle(folder) for folder in find_bundles(Path(site.store.root) / "bundles")]
    aside = [read_bundle(folder) for folder in find_bundles(Path(site.store.root) / "rejected")]
    assert kept and aside and all(REJECTED in bundle.params for bundle in aside)
    for bundle in kept:
        assert len(bundle.frames) == 4 and all(frame.key_frame for frame in bundle.frames)
        assert all(len(frame.actions_step) == 1 for frame in bundle.frames[1:])
        assert all(frame.gates and all(verdict.passed for verdict in frame.gates) for frame in bundle.frames[1:])
        # Of 90 degrees, as the EXIF says to the millimetre.
        assert bundle.frames[0].intrinsics[0, 0] == pytest.approx(64, rel=0.03)
        assert site.store.exists(f"photos/{bundle.params['photo']}")


def test_records_to_train_on_weigh_what_the_gates_say_of_their_world(finished: tuple[Site, App]) -> None:
    site, _ = finished
    dataset = site.dataset(RoundState(site.store, "night"))
    [weight] = {record.weight for record in dataset.splits["train"]}
    assert 0.3 < weight < 1 and dataset.info["weights"] == {"geometric": weight}
    assert {record.weight for record in dataset.splits["test"]} == {1.0}


def test_the_same_photographs_give_the_same_dataset(
    finished: tuple[Site, App], photos: Path, teacher_url: str, tmp_path: Path
) -> None:
    site, _ = finished
    other = Site(tmp_path, teacher_url)
    again = other.run(photos, recipe=NO_TRAINING, scenes_per_shard=1)
    assert other.dataset(again).digest == site.dataset(RoundState(site.store, "night")).digest


def test_a_photograph_that_vanished_ends_the_round_with_its_name(
    photos: Path, teacher_url: str, tmp_path: Path
) -> None:
    site = Site(tmp_path, teacher_url)
    collection = gather(site.store, photos).collection
    gone = next(scene for scene in collection.scenes if scene.split == "train").photos[0]
    state = create(site.store, collection.digest)
    site.store.delete(f"photos/{gone}")
    with pytest.raises(NotFoundError, match=gone):
        site.do_next(state)


def test_a_world_that_takes_no_photographs_imagines_nothing(photos: Path, teacher_url: str, tmp_path: Path) -> None:
    site = Site(tmp_path, teacher_url)
    digest = gather(site.store, photos).collection.digest
    with pytest.raises(InvalidInputError, match="takes no photos: name another, such as geometric"):
        create(site.store, digest, world="renderer")
    # A plan that another program wrote.
    state = RoundState(site.store, "foreign")
    state.create(RoundPlan("foreign", world="renderer", photos=digest))
    with pytest.raises(InvalidInputError, match="'renderer' takes no photos; the teacher's that do: geometric"):
        site.do_next(state)
    assert not site.store.exists("bundles") and not site.store.exists("rejected")


def test_rooms_need_a_world_that_takes_them(teacher_url: str, tmp_path: Path) -> None:
    site = Site(tmp_path, teacher_url)
    state = create(site.store, "", world="geometric")
    with pytest.raises(InvalidInputError, match="'geometric' takes no scenes; the teacher's that do: renderer"):
        site.do_next(state)


def test_terms_are_kept_as_for_rooms(photos: Path, tmp_path: Path) -> None:
    """Models that nobody vouches for make a world whose frames may train nobody."""
    world = GeometricWorld(options=GeometricOptions(inpaint_model="none"))
    world.info = replace(world.info, outputs_may_train=False)
    with serving(world) as url:
        site = Site(tmp_path, url)
        with pytest.raises(PreconditionError, match=r"'geometric'.*may not train other models"):
            site.run(photos)
    assert not site.store.exists("bundles")


class FurnishedWorld(StepWorld):
    """Flat frames in which a detector finds two chairs, as it would without a colour, and a lamp in every other one."""

    def _frames(self, spec: ImagineSpec) -> Iterator[Frame]:
        for index, frame in enumerate(super()._frames(spec)):
            left, top = 30 * (index % 10), 20 * (index % 10)
            found = [("chair", 100, 200), ("chair", 500, 300), *([("lamp", 300, 550)] if index % 2 else [])]
            yield replace(
                frame,
                objects=tuple(
                    ObjectView(number, name, "", Box(x + left, y + top, x + left + 90, y + top + 160), 0.014)
                    for number, (name, x, y) in enumerate(found, start=1)
                ),
            )


def test_with_objects_all_tasks_are_trained_and_asked(photos: Path, tmp_path: Path) -> None:
    with serving(FurnishedWorld(0)) as url, running_student(tmp_path / "store") as (_, client):
        site = Site(tmp_path, url, client.url)
        state = site.run(photos, recipe="smoke", world="steps", trajectories_per_scene=3)
        dataset, evaluation = site.dataset(state), state.read_step("evaluation") or {}
    assert set(dataset.by_task) == set(TASKS) and dataset.info["missing_tasks"] == []
    assert set(evaluation["after"]) == {*TASKS, "macro"}
    assert set(evaluation["probes"]["before"]) == {"grounding", "naming"}
    assert state.read_step("promotion") is not None and "no held-out questions" not in outcome(state)


def test_what_the_gate_lets_pass_is_swapped_in(finished: tuple[Site, App]) -> None:
    """Four places are too few for the gate, so its word is changed here; the student service keeps its own checks."""
    site, _ = finished
    state = RoundState(site.store, "night")
    evaluation = state.read_step("evaluation") or {}
    site.store.write_json("rounds/night/evaluation.json", {**evaluation, "decision": {"reasons": []}})
    site.store.delete("rounds/night/promotion.json")
    site.do_next(state)
    promotion = state.read_step("promotion") or {}
    assert promotion["promoted"] and (promotion["swap"]["from"], promotion["swap"]["to"]) == (1, 2)
