"""Messages of `world2vlm.v1` to domain objects and back. Bad values raise `InvalidInputError`."""

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.bundles import Frame, GateVerdict, ObjectView
from world2vlm.cameras import Floats, check_intrinsics, check_pose
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import Answer, AnswerKind, Question, get_task
from world2vlm.v1 import spatial_pb2, student_pb2, teacher_pb2
from world2vlm.worlds import WorldInfo

_PRIMITIVES = {
    spatial_pb2.PRIMITIVE_MOVE_FORWARD: Primitive.FORWARD,
    spatial_pb2.PRIMITIVE_MOVE_BACKWARD: Primitive.BACKWARD,
    spatial_pb2.PRIMITIVE_MOVE_LEFT: Primitive.LEFT,
    spatial_pb2.PRIMITIVE_MOVE_RIGHT: Primitive.RIGHT,
    spatial_pb2.PRIMITIVE_TURN_LEFT: Primitive.TURN_LEFT,
    spatial_pb2.PRIMITIVE_TURN_RIGHT: Primitive.TURN_RIGHT,
}
_TO_PRIMITIVE = {primitive: value for value, primitive in _PRIMITIVES.items()}


def action_from_proto(message: spatial_pb2.Action) -> Action:
    """Read an action; the primitive must be set and the magnitude finite and greater than 0."""
    primitive = _PRIMITIVES.get(message.primitive)
    if primitive is None:
        raise InvalidInputError(f"unknown primitive {message.primitive}")
    return Action(primitive, message.magnitude)


def action_to_proto(action: Action) -> spatial_pb2.Action:
    """Write an action."""
    return spatial_pb2.Action(primitive=_TO_PRIMITIVE[action.primitive], magnitude=action.magnitude)


def actions_from_proto(messages: Iterable[spatial_pb2.Action]) -> tuple[Action, ...]:
    """Read actions in order."""
    return tuple(map(action_from_proto, messages))


def box_from_proto(message: spatial_pb2.Box) -> Box:
    """Read a box; corners must be in order and in 0-1000."""
    return Box(message.x1, message.y1, message.x2, message.y2)


def box_to_proto(box: Box) -> spatial_pb2.Box:
    """Write a box."""
    return spatial_pb2.Box(x1=box.x1, y1=box.y1, x2=box.x2, y2=box.y2)


def pose_from_proto(message: spatial_pb2.Pose) -> Floats:
    """Read a pose as float64 (4, 4) c2w; it must have 16 values and be rigid."""
    if len(message.c2w) != 16:
        raise InvalidInputError(f"a pose must have 16 values, not {len(message.c2w)}")
    return check_pose(np.array(message.c2w).reshape(4, 4))


def pose_to_proto(c2w: Floats) -> spatial_pb2.Pose:
    """Write a (4, 4) c2w pose row by row."""
    return spatial_pb2.Pose(c2w=c2w.ravel().tolist())


def intrinsics_from_proto(message: spatial_pb2.Intrinsics) -> tuple[Floats, tuple[int, int]]:
    """Read K, float64 (3, 3) in pixels, and the (width, height) it belongs to; both must be positive."""
    if message.width == 0 or message.height == 0:
        raise InvalidInputError("intrinsics need the width and height of their image")
    matrix = np.array([[message.fx, 0.0, message.cx], [0.0, message.fy, message.cy], [0.0, 0.0, 1.0]])
    return check_intrinsics(matrix), (message.width, message.height)


def intrinsics_to_proto(intrinsics: Floats, size: tuple[int, int]) -> spatial_pb2.Intrinsics:
    """Write K of an image of `size` (width, height)."""
    k = intrinsics
    return spatial_pb2.Intrinsics(fx=k[0, 0], fy=k[1, 1], cx=k[0, 2], cy=k[1, 2], width=size[0], height=size[1])


def object_from_proto(message: spatial_pb2.ObjectView) -> ObjectView:
    """Read an object in view."""
    box = box_from_proto(message.box)
    return ObjectView(message.instance_id, message.category, message.colour, box, message.area)


def object_to_proto(view: ObjectView) -> spatial_pb2.ObjectView:
    """Write an object in view."""
    return spatial_pb2.ObjectView(
        instance_id=view.instance_id,
        category=view.category,
        colour=view.colour,
        box=box_to_proto(view.box),
        area=view.area,
    )


def frame_from_proto(message: teacher_pb2.Frame) -> Frame:
    """Read one imagined frame; the images stay encoded."""
    intrinsics, size = intrinsics_from_proto(message.intrinsics)
    return Frame(
        png=message.image.data,
        c2w=pose_from_proto(message.pose),
        intrinsics=intrinsics,
        size=size,
        actions_step=actions_from_proto(message.actions_step),
        key_frame=message.key_frame,
        objects=tuple(map(object_from_proto, message.objects)),
        instances_png=message.instances.data,
        scores=dict(message.scores),
        gates=tuple(map(verdict_from_proto, message.gates)),
        observed_png=message.observed.data,
    )


def frame_to_proto(frame: Frame, index: int, count: int) -> teacher_pb2.Frame:
    """Write frame `index` of `count`."""
    return teacher_pb2.Frame(
        index=index,
        count=count,
        image=spatial_pb2.Image(data=frame.png),
        pose=pose_to_proto(frame.c2w),
        intrinsics=intrinsics_to_proto(frame.intrinsics, frame.size),
        actions_step=map(action_to_proto, frame.actions_step),
        key_frame=frame.key_frame,
        observed=spatial_pb2.Image(data=frame.observed_png) if frame.observed_png else None,
        objects=map(object_to_proto, frame.objects),
        instances=spatial_pb2.Image(data=frame.instances_png) if frame.instances_png else None,
        scores=frame.scores,
        gates=map(verdict_to_proto, frame.gates),
    )


def verdict_from_proto(message: teacher_pb2.GateVerdict) -> GateVerdict:
    """Read what a gate says about a frame."""
    return GateVerdict(message.name, message.figure, message.passed, message.reason)


def verdict_to_proto(verdict: GateVerdict) -> teacher_pb2.GateVerdict:
    """Write what a gate says about a frame."""
    return teacher_pb2.GateVerdict(**asdict(verdict))


def world_from_proto(message: teacher_pb2.World) -> WorldInfo:
    """Read what a world says about itself."""
    return WorldInfo(
        name=message.name,
        description=message.description,
        metric=message.metric,
        generative=message.generative,
        takes_scenes=message.takes_scenes,
        takes_photos=message.takes_photos,
        licence=message.licence,
        outputs_may_train=message.outputs_may_train,
        digest=message.digest,
        outputs_may_be_sold=message.outputs_may_be_sold,
        excluded_regions=tuple(message.excluded_regions),
        terms=message.terms,
        lanes=message.lanes,
    )


def world_to_proto(info: WorldInfo) -> teacher_pb2.World:
    """Write what a world says about itself."""
    return teacher_pb2.World(**asdict(info))


def question_from_proto(message: student_pb2.TaskQuestion) -> Question:
    """Read a typed question; it must have the fields that its task needs, and no others."""
    if message.task == student_pb2.TASK_TYPE_UNSPECIFIED or message.task not in student_pb2.TaskType.values():
        raise InvalidInputError(f"unknown task type {message.task}")
    return Question(
        task=student_pb2.TaskType.Name(message.task).removeprefix("TASK_TYPE_"),
        actions=actions_from_proto(message.actions),
        object=message.object,
        box=box_from_proto(message.box) if message.HasField("box") else None,
        second_box=box_from_proto(message.second_box) if message.HasField("second_box") else None,
    )


def question_to_proto(question: Question) -> student_pb2.TaskQuestion:
    """Write a typed question."""
    return student_pb2.TaskQuestion(
        task=f"TASK_TYPE_{question.task}",
        actions=map(action_to_proto, question.actions),
        object=question.object,
        box=box_to_proto(question.box) if question.box else None,
        second_box=box_to_proto(question.second_box) if question.second_box else None,
    )


def answer_from_proto(message: student_pb2.ReasonResponse) -> Answer | None:
    """Read the typed answer; None where the student's text was no answer of the task's kind."""
    match message.WhichOneof("answer"):
        case "motions":
            return actions_from_proto(message.motions.actions)
        case "box":
            return box_from_proto(message.box)
        case "yes":
            return message.yes
        case _:
            return None


def answer_to_proto(task: str, answer: Answer, message: student_pb2.ReasonResponse) -> None:
    """Put the typed answer to `task` into a reply."""
    match get_task(task).kind, answer:
        case AnswerKind.BINARY, bool():
            message.yes = answer
        case AnswerKind.BOX, Box():
            message.box.CopyFrom(box_to_proto(answer))
        case AnswerKind.MOTION | AnswerKind.SEQUENCE, tuple():
            message.motions.actions.extend(map(action_to_proto, answer))
        case kind, _:
            raise InvalidInputError(f"{answer!r} is no {kind.value} answer")
