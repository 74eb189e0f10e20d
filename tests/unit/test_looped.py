"""The student with a world model in the loop: what it may know, how it searches, and how it is set."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import looped_kit
from tests.dataset_kit import toy_records
from tests.looped_kit import ACTIONS, Room, question, write_room
from tests.vlm_kit import student
from trainer.looped import Breadth, Looper, Way, fit, read_case, search
from trainer.looped.cases import Start
from trainer.looped.fitting import best_threshold
from trainer.looped.likeness import BySight, Likeness, by_pixels
from trainer.looped.ways import WAYS
from trainer.looped.worlds import CountedWorld
from world2vlm.actions import Action, Primitive, format_actions, parse_actions
from world2vlm.base_student import BASE_STUDENT
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.tasks import TASKS, parse_answer
from world2vlm.vlm import StudentModel

PRIMITIVES = tuple(Primitive)


bundles, records = looped_kit.bundles, looped_kit.records


@pytest.fixture(scope="module")
def base() -> StudentModel:
    return StudentModel.load(BASE_STUDENT)


class Narrow(Room):
    """A room whose gate lets the camera move 0.2 m at most, and turn freely."""

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        metres = sum(action.magnitude for action in actions if not action.primitive.is_turn)
        if metres > 0.2 + 1e-9:
            raise GateRejectedError("collision", metres, "too far")
        return super().imagine(start, actions)


class Closed(Room):
    """A room whose gate rejects every path."""

    def imagine(self, start: Start, actions: Sequence[Action]) -> list[Image.Image]:
        raise GateRejectedError("collision", 0.0, "nowhere to go")


@pytest.mark.parametrize("name", ["pixels", "sight"])
def test_the_search_finds_a_path_of_two_actions(
    bundles: Path, records: list[TaskRecord], base: StudentModel, name: str
) -> None:
    likeness: Likeness = by_pixels if name == "pixels" else BySight(base)
    case = read_case(bundles, question(records, "A3", 0, 2))
    found = search(Room(), case.start, case.images[1], likeness, PRIMITIVES, (1, 2), Breadth(magnitudes=3))
    assert found is not None and list(found.actions) == ACTIONS


def test_it_searches_from_where_the_first_image_was_taken(bundles: Path, records: list[TaskRecord]) -> None:
    case = read_case(bundles, question(records, "A1", 2, 1))
    world = CountedWorld(Room())
    found = search(world, case.start, case.images[1], by_pixels, PRIMITIVES[:4], (1, 1), Breadth())
    assert found is not None and format_actions(found.actions) == "move backward 0.4 meters"
    assert (world.calls, world.views) == (4, 24)


def test_a_case_knows_nothing_of_the_answer_or_of_the_second_camera(
    tmp_path: Path, records: list[TaskRecord], bundles: Path
) -> None:
    record = question(records, "A3", 2, 0)
    first = record.meta["frames"][0]
    write_room(tmp_path)
    path = next(tmp_path.glob("**/traj.json"))
    content = json.loads(path.read_text(encoding="utf-8"))
    for index, transform in enumerate(content["transforms"]["frames"]):
        if index != first:
            transform["transform_matrix"] = np.full((4, 4), 9.0).tolist()
            content["actions_step"][index], content["objects"][index] = ["FWD_9"], []
    content["traj_params"]["actions"] = "move forward 9 meters"
    path.write_text(json.dumps(content), encoding="utf-8")
    lying = replace(record, assistant="turn right 50 degrees; move left 1 meters", meta={**record.meta, "actions": "?"})
    loops = [Looper(student(), student(), Room(), breadth=Breadth(magnitudes=1)) for _ in range(2)]
    honest, altered = read_case(bundles, record), read_case(tmp_path, lying)
    assert loops[0].answer(honest) == loops[1].answer(altered)
    assert (honest.question, honest.start.png) == (altered.question, altered.start.png)
    assert np.array_equal(honest.start.c2w, altered.start.c2w)


def test_a_case_needs_a_procedural_scene_and_an_honest_text(
    tmp_path: Path, bundles: Path, records: list[TaskRecord]
) -> None:
    with pytest.raises(InvalidInputError, match="no procedural scene"):
        read_case(tmp_path, toy_records(tmp_path, 1)[0])
    record = next(r for r in records if r.task_type == "D1")
    with pytest.raises(InvalidInputError, match="not what its meta says"):
        read_case(bundles, replace(record, meta={**record.meta, "object": "unicorn"}))


@pytest.mark.parametrize(("world", "beam"), [(Room(), 1), (Room(), 2), (Narrow(), 2), (Closed(), 2)])
def test_calls_of_the_world_model_are_bounded(bundles: Path, records: list[TaskRecord], world: Room, beam: int) -> None:
    case = read_case(bundles, question(records, "A3", 0, 2))
    counted, breadth = CountedWorld(world), Breadth(beam=beam, magnitudes=2)
    proposal = tuple(parse_actions("turn left 30 degrees; move left 0.2 meters"))
    search(counted, case.start, case.images[1], by_pixels, PRIMITIVES, (2, 3), breadth, proposal)
    assert 0 < counted.calls <= breadth.most_calls(3)


def test_rejected_paths_are_left_out_and_nearer_ones_tried(bundles: Path, records: list[TaskRecord]) -> None:
    case = read_case(bundles, question(records, "A1", 1, 2))  # the truth, 0.4 m, is out of reach
    found = search(Narrow(), case.start, case.images[1], by_pixels, PRIMITIVES[:4], (1, 1), Breadth())
    assert found is not None and format_actions(found.actions) == "move forward 0.2 meters"


def test_the_proposal_is_tried_beside_the_grid(bundles: Path, records: list[TaskRecord]) -> None:
    case = read_case(bundles, question(records, "A3", 0, 2))
    coarse = Breadth(step_m=0.3, step_deg=20, magnitudes=1)  # a grid that the truth is not on
    found = search(Room(), case.start, case.images[1], by_pixels, PRIMITIVES, (2, 2), coarse, tuple(ACTIONS))
    assert found is not None and list(found.actions) == ACTIONS


def test_where_every_path_is_rejected_the_student_answers_alone(bundles: Path, records: list[TaskRecord]) -> None:
    model = student()
    looper = Looper(model, model, Closed())
    for task in ("A1", "A3", "D1", "D2"):
        case = read_case(bundles, next(r for r in records if r.task_type == task))
        assert looper.answer(case) == looper.reader.direct(case.question, case.images)


def test_every_task_gets_an_answer_of_its_form(bundles: Path, records: list[TaskRecord], base: StudentModel) -> None:
    looper = Looper(base, base, Room(), breadth=Breadth(magnitudes=1))
    seen = {record.task_type: record for record in records}
    assert seen.keys() == TASKS.keys()
    for task, record in seen.items():
        parse_answer(task, looper.answer(read_case(bundles, record)))


@pytest.mark.parametrize(("task", "way"), [(task, way) for task, known in WAYS.items() for way in known])
def test_every_way_answers_in_its_task_s_form(
    bundles: Path, records: list[TaskRecord], base: StudentModel, task: str, way: str
) -> None:
    record = next(r for r in records if r.task_type == task)
    parse_answer(task, Looper(base, base, Room(), {task: Way(way)}).answer(read_case(bundles, record)))


def test_ways_are_chosen_by_the_labels(bundles: Path, records: list[TaskRecord], base: StudentModel) -> None:
    claims = [(read_case(bundles, r), r.assistant) for r in records if r.task_type == "A4"]
    looper = Looper(base, base, Room())
    ways = fit(looper, claims)
    assert set(ways) == {"A4"}
    fitted = Looper(base, base, Room(), ways)
    assert [fitted.answer(case) for case, _ in claims] == [answer for _, answer in claims]
    assert fit(Looper(student(), student(), Closed()), claims) == {}


@pytest.mark.parametrize(
    ("evidence", "truth", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], (1.0, 0.5)),
        ([0.1, 0.2, 0.8, 0.9], [0, 1, 0, 1], (0.75, 0.15)),  # as good from 0.85 on, with a narrower gap
        ([0.3, 0.3], [1, 1], (1.0, 0.3)),
    ],
)
def test_thresholds_by_hand(evidence: list[float], truth: list[int], expected: tuple[float, float]) -> None:
    found = best_threshold(np.array(evidence), np.array(truth, dtype=bool))
    assert found == pytest.approx(expected)
