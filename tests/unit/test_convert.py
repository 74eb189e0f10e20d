import math
from collections.abc import Callable

import numpy as np
import pytest

from world2vlm import convert
from world2vlm.actions import Action, Primitive, parse_actions
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import integrate, intrinsics_from_fov
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import Answer, Question
from world2vlm.v1 import spatial_pb2, student_pb2, teacher_pb2
from world2vlm.worlds import WorldInfo

BOX, OTHER = Box(10, 20, 300, 400), Box(0, 0, 1000, 1000)
ACTIONS = tuple(parse_actions("move forward 0.5 meters; turn left 30 degrees"))
QUESTIONS = [
    Question("A1"),
    Question("A2"),
    Question("A3"),
    Question("A4", ACTIONS),
    Question("D1", ACTIONS, "red chair", BOX),
    Question("D2", ACTIONS, "red chair", BOX),
    Question("D3", (), "red chair", BOX, OTHER),
    Question("D4", ACTIONS, "red chair", BOX, OTHER),
]


@pytest.mark.parametrize("primitive", Primitive)
def test_actions_round_trip(primitive: Primitive) -> None:
    action = Action(primitive, 1 / 3)
    assert convert.action_from_proto(convert.action_to_proto(action)) == action


def test_primitives_have_the_names_of_the_contract() -> None:
    assert convert.action_to_proto(Action(Primitive.TURN_LEFT, 1)).primitive == spatial_pb2.PRIMITIVE_TURN_LEFT
    assert convert.action_to_proto(Action(Primitive.BACKWARD, 1)).primitive == spatial_pb2.PRIMITIVE_MOVE_BACKWARD


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.task)
def test_questions_round_trip(question: Question) -> None:
    assert convert.question_from_proto(convert.question_to_proto(question)) == question


@pytest.mark.parametrize(
    ("task", "answer"), [("A1", ACTIONS[:1]), ("A3", ACTIONS), ("D1", BOX), ("D2", True), ("D4", False)]
)
def test_answers_round_trip(task: str, answer: Answer) -> None:
    reply = student_pb2.ReasonResponse()
    assert convert.answer_from_proto(reply) is None
    convert.answer_to_proto(task, answer, reply)
    assert convert.answer_from_proto(reply) == answer


def test_an_answer_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="box"):
        convert.answer_to_proto("D1", True, student_pb2.ReasonResponse())


def test_frames_round_trip() -> None:
    frame = Frame(
        png=b"png",
        c2w=integrate(ACTIONS)[-1],
        intrinsics=intrinsics_from_fov(90, 64, 48),
        size=(64, 48),
        actions_step=ACTIONS,
        key_frame=False,
        objects=(ObjectView(3, "chair", "red", BOX, 0.25),),
        instances_png=b"map",
        scores={"clearance_m": 0.5},
        observed_png=b"mask",
    )
    message = convert.frame_to_proto(frame, 1, 4)
    back = convert.frame_from_proto(teacher_pb2.Frame.FromString(message.SerializeToString()))
    assert (message.index, message.count, message.observed.data, back.observed_png) == (1, 4, b"mask", b"mask")
    assert convert.frame_to_proto(back, 1, 4) == message
    assert np.array_equal(back.c2w, frame.c2w)
    assert np.array_equal(back.intrinsics, frame.intrinsics)
    for name in ("png", "size", "actions_step", "key_frame", "objects", "instances_png", "scores"):
        assert getattr(back, name) == getattr(frame, name)


def test_worlds_round_trip() -> None:
    info = WorldInfo("name", "what it is", True, False, True, False, "Apache-2.0", True, "ab" * 32)
    assert convert.world_from_proto(convert.world_to_proto(info)) == info


@pytest.mark.parametrize(
    "read",
    [
        lambda: convert.action_from_proto(spatial_pb2.Action(magnitude=1)),
        lambda: convert.action_from_proto(spatial_pb2.Action(primitive=1)),
        lambda: convert.action_from_proto(spatial_pb2.Action(primitive=1, magnitude=math.nan)),
        lambda: convert.action_from_proto(spatial_pb2.Action(primitive=1, magnitude=-1)),
        lambda: convert.action_from_proto(spatial_pb2.Action(primitive=99, magnitude=1)),
        lambda: convert.box_from_proto(spatial_pb2.Box(x1=5, y1=0, x2=5, y2=9)),
        lambda: convert.box_from_proto(spatial_pb2.Box(x1=0, y1=0, x2=1001, y2=9)),
        lambda: convert.pose_from_proto(spatial_pb2.Pose(c2w=[1] * 15)),
        lambda: convert.pose_from_proto(spatial_pb2.Pose(c2w=[2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])),
        lambda: convert.pose_from_proto(spatial_pb2.Pose(c2w=[math.nan] * 16)),
        lambda: convert.intrinsics_from_proto(spatial_pb2.Intrinsics(fx=1, fy=1, cx=0, cy=0)),
        lambda: convert.intrinsics_from_proto(spatial_pb2.Intrinsics(fx=0, fy=1, width=9, height=9)),
        lambda: convert.question_from_proto(student_pb2.TaskQuestion()),
        lambda: convert.question_from_proto(student_pb2.TaskQuestion(task=student_pb2.TASK_TYPE_D1)),
        lambda: convert.question_from_proto(student_pb2.TaskQuestion(task=student_pb2.TASK_TYPE_A1, object="x")),
    ],
)
def test_bad_messages_are_refused(read: Callable[[], object]) -> None:
    with pytest.raises(InvalidInputError):
        read()
