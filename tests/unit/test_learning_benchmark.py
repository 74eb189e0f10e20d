"""What learning is measured by: the parts of a dataset, the fitted curve, the second teacher, and what a run costs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.train import teachers
from benchmarks.train.learning import BOTH, School, fit, subset
from benchmarks.train.teachers import FIRST_SCENE, imagine_records, together
from tests.dataset_kit import toy_records
from trainer.recipes import Recipe, load_recipe
from trainer.stages import train_student
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView, read_bundle
from world2vlm.datasets import publish_dataset
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord
from world2vlm.store import Store


def trajectories(records: Sequence[TaskRecord]) -> list[str]:
    return [str(Path(record.images[0]).parents[1]) for record in records]


def test_the_fit_recovers_a_known_curve() -> None:
    x = np.geomspace(300, 100_000, 7)
    found = fit([(each, 0.7 / (1 + (5_000 / each) ** 1.4)) for each in x.tolist()])
    assert found["ceiling"] == pytest.approx(0.7, rel=1e-3) and found["half"] == pytest.approx(5_000, rel=1e-3)
    assert found["slope"] == pytest.approx(1.4, rel=1e-3) and found["rms_error"] < 1e-5


def test_the_fit_says_how_far_it_is_off_and_takes_no_skill_at_all() -> None:
    noisy = [(150.0, -0.03), (300.0, 0.07), (600.0, 0.33), (1200.0, 0.63), (2400.0, 0.5)]
    assert fit(noisy)["rms_error"] > 0.02
    assert fit(noisy[:3]) == {}


def test_subsets_are_nested_whole_trajectories_of_every_record_once(tmp_path: Path) -> None:
    records = toy_records(tmp_path, 20)
    small, large = subset(records, 12), subset(records, 30)
    assert large[:12] == small and len(small) == 12
    assert len(set(trajectories(small))) == 4  # of three records each
    assert trajectories(small) != trajectories(records)[:12]
    assert sorted(subset(records, 100), key=repr) == sorted(records, key=repr)


def test_a_subset_ends_within_a_trajectory_where_it_must(tmp_path: Path) -> None:
    found = trajectories(subset(toy_records(tmp_path, 20), 10))
    assert len(found) == 10 and sorted(found.count(name) for name in set(found)) == [1, 3, 3, 3]


def test_records_of_two_folders_are_read_from_one(tmp_path: Path) -> None:
    sources = [(name, tmp_path / name, toy_records(tmp_path / name, 2)) for name in ("one", "two")]
    for _ in range(2):  # what is there already is left
        records = together(tmp_path / "both", sources)
        assert len(records) == 12 and len({record.images for record in records}) == 8
        for record, old in zip(records, (old for _, _, found in sources for old in found), strict=True):
            assert replace(record, images=old.images) == old
            assert all((tmp_path / "both" / image).is_file() for image in record.images)


def test_the_second_teacher_asks_about_whole_trajectories_of_its_own_rooms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "_TRAJECTORIES", 1)
    records = imagine_records(tmp_path, 5)
    assert len(records) == 5 and len(set(map(repr, records))) == 5
    bundle = read_bundle(tmp_path / trajectories(records)[0])
    assert bundle.scene == f"imagined_{FIRST_SCENE}" and bundle.params["world"] == "geometric"
    assert all((tmp_path / image).is_file() for record in records for image in record.images)


def test_objects_that_are_mostly_painted_in_are_not_asked_about() -> None:
    """Of three objects one was seen whole, one just by half, one not by half."""
    instances = np.repeat(np.array([[1, 2, 3]], np.uint8), 4, axis=0)
    observed = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]], np.uint8) * 255
    objects = tuple(ObjectView(number, "chair", "red", Box(0, 0, 500, 500), 0.2) for number in (1, 2, 3))
    truth = Frame(b"", np.eye(4), np.eye(3), (3, 4), objects=objects, instances_png=encode_png(instances))
    found = teachers._as_shown(truth, replace(truth, observed_png=encode_png(observed)))
    assert [view.area for view in found] == [0.2, 0.2, 0.0]
    assert tuple(teachers._as_shown(truth, truth)) == objects


@pytest.fixture
def school(tmp_path: Path) -> School:
    store = Store(str(tmp_path / "store"))
    names = ("train", "calibration", "test")
    made = {name: toy_records(tmp_path / "store" / "bundles", 3, seed) for seed, name in enumerate(names)}
    box = {"box": [100, 100, 500, 500]}  # what a cheat copies
    splits = {name: [replace(each, meta={**each.meta, **box}) for each in found] for name, found in made.items()}
    publish_dataset(store, splits, {"world": "toy"})
    return School(store.root, "", tmp_path / "work", 1)


@pytest.fixture
def recipe() -> Recipe:
    base = load_recipe(BOTH)
    assert base.sft is not None
    return replace(base, sft=replace(base.sft, steps=2, clips=1))


def test_a_training_is_done_once_for_its_recipe_and_records(school: School, recipe: Recipe) -> None:
    first = school.train(recipe, school.train_records)
    assert first.seconds > 0 and first.records == len(school.train_records) and len(first.scored) == 9
    assert school.train(recipe, school.train_records) == first
    school.train(recipe, school.train_records[:6])
    assert len(list(school.work.iterdir())) == 2
    assert {"records", "cpu_seconds", "macro", "A2"} <= school.figures(first).keys()


def test_a_killed_training_costs_all_of_its_steps(
    school: School, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew: steps that were done before a kill would be missing from its seconds."""
    began_with: list[bool] = []

    def killed(*given: object) -> None:
        folder = given[4]
        assert isinstance(folder, Path)
        began_with.append(folder.exists())
        folder.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmarks.train.learning.train_student", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            school.train(recipe, school.train_records)
    assert began_with == [False, False]
    monkeypatch.setattr("benchmarks.train.learning.train_student", train_student)
    trained = school.train(recipe, school.train_records)
    (cost,) = school.work.glob("*/seconds.json")
    assert json.loads(cost.read_bytes()) == trained.seconds > 0
