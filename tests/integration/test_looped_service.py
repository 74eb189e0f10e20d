"""The loop over the real teacher service."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from teacher_service.app import in_background
from tests import looped_kit
from tests.looped_kit import question
from trainer.looped import Breadth, Looper, PhotoWorld, SceneWorld, read_case, search
from trainer.looped.likeness import by_pixels
from world2vlm.actions import Primitive, format_actions, parse_actions
from world2vlm.base_student import BASE_STUDENT
from world2vlm.clients.teacher import TeacherClient
from world2vlm.errors import UnavailableError
from world2vlm.records import TaskRecord
from world2vlm.settings import TeacherSettings
from world2vlm.vlm import StudentModel

bundles, records = looped_kit.bundles, looped_kit.records


@pytest.fixture(scope="module")
def client() -> Iterator[TeacherClient]:
    settings = TeacherSettings(
        port=0,
        metrics_port=-1,
        min_clearance_m=0,
        min_object_area=0,
        min_observed_share=0,
        world_options={"geometric": {"inpaint_model": "none"}},
    )
    with in_background(settings) as port, TeacherClient(f"127.0.0.1:{port}", timeout=60) as client:
        yield client


def test_the_scene_is_imagined_from_the_first_image(
    client: TeacherClient, bundles: Path, records: list[TaskRecord]
) -> None:
    case = read_case(bundles, question(records, "A1", 2, 1))
    view = SceneWorld(client).imagine(case.start, parse_actions("move backward 0.4 meters"))[-1]
    assert np.array_equal(np.asarray(view), np.asarray(case.images[1]))


def test_a_photo_is_imagined_with_and_without_its_depth(
    client: TeacherClient, bundles: Path, records: list[TaskRecord]
) -> None:
    case = read_case(bundles, question(records, "A2", 0, 1))
    flat = np.full(case.start.size[::-1], 2.5, dtype=np.float32)
    for world in (PhotoWorld(client), PhotoWorld(client, lambda start: flat)):
        turns = (Primitive.TURN_LEFT, Primitive.TURN_RIGHT)
        found = search(world, case.start, case.images[1], by_pixels, turns, (1, 1), Breadth())
        assert found is not None and format_actions(found.actions) == "turn left 30 degrees"


def test_a_gate_that_rejects_ends_nothing(bundles: Path, records: list[TaskRecord]) -> None:
    settings = TeacherSettings(port=0, metrics_port=-1, min_clearance_m=0.5, min_object_area=0)
    case = read_case(bundles, question(records, "A1", 1, 2))
    with in_background(settings) as port, TeacherClient(f"127.0.0.1:{port}", timeout=60) as client:
        looper = Looper(StudentModel.load(BASE_STUDENT), StudentModel.load(BASE_STUDENT), SceneWorld(client))
        answer = looper.answer(case)
    assert answer.startswith("move ")
    assert looper.world.calls > 5  # four roll-outs and the proposal, had nothing been rejected


def test_a_teacher_that_is_gone_is_unavailable(bundles: Path, records: list[TaskRecord]) -> None:
    case = read_case(bundles, question(records, "A1", 1, 2))
    with TeacherClient("127.0.0.1:1", timeout=5) as client, pytest.raises(UnavailableError):
        Looper(StudentModel.load(BASE_STUDENT), StudentModel.load(BASE_STUDENT), SceneWorld(client)).answer(case)
