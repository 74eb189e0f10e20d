"""The canary: one question of each task, asked of every checkpoint before it may answer anybody else.

It finds weights that are broken, not weights that are bad: how good a checkpoint is was measured before it was
promoted. The pictures are drawn, so that the service needs no data to check itself.
"""

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw

from student_service.engines.base import Query, Reply
from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.errors import GateRejectedError, InvalidInputError
from world2vlm.images import encode_png
from world2vlm.tasks import TASKS, Question, get_task, parse_answer

GATE = "canary"
# An answer is short; a checkpoint that never stops must not hold up the questions that wait.
MAX_NEW_TOKENS = 24
# More than any task's answer takes: its grammar ends it.
WARM_NEW_TOKENS = 64
# One answer that stops making sense is chance, more are a broken checkpoint.
ALLOWED_LOSS = 1

_SIZE = 128
_NEAR, _FAR = Box(250, 400, 625, 775), Box(344, 438, 594, 688)
_FORWARD = (Action(Primitive.FORWARD, 0.5),)
_TURN = (Action(Primitive.TURN_LEFT, 60.0),)


def canary_questions() -> list[Question]:
    """One question of each task, about the pictures of `canary_queries`."""
    return [
        Question("A1"),
        Question("A2"),
        Question("A3"),
        Question("A4", actions=_FORWARD),
        Question("D1", actions=_FORWARD, object="red box", box=_FAR),
        Question("D2", actions=_TURN, object="red box", box=_FAR),
        Question("D3", object="red box", box=_FAR, second_box=_NEAR),
        Question("D4", actions=_FORWARD, object="red box", box=_FAR, second_box=_NEAR),
    ]


def canary_queries() -> list[Query]:
    """The canary's questions as an engine takes them: a red box in a grey room, seen from afar and from nearer."""
    views = (_draw_room(_FAR), _draw_room(_NEAR))
    return [Query(views[: get_task(question.task).images], question.text) for question in canary_questions()]


def warm_batches(capacity: int) -> Iterator[list[Query]]:
    """Every shape that an engine will serve: batches of 1, 2, 4 and so on to its capacity, and all the tasks."""
    queries, asked, size = warm_queries(), 0, 1
    while size < 2 * capacity or asked < len(TASKS):
        batch = list(itertools.islice(queries, min(size, capacity)))
        yield batch
        asked, size = asked + len(batch), 2 * size


def warm_queries() -> Iterator[Query]:
    """Questions of all tasks in turn, each bound to its task's form and with pictures of its own, without end."""
    for number, question in enumerate(itertools.cycle(canary_questions())):
        views = (_draw_room(_FAR, number), _draw_room(_NEAR, number))
        yield Query(views[: get_task(question.task).images], question.text, question.task)


def judge(replies: Iterable[Reply], parsed_before: int) -> int:
    """Judge the replies to `canary_queries`, in their order.

    Args:
        replies: one for each question.
        parsed_before: how many the checkpoint that serves now answers in its task's form.

    Returns:
        How many are an answer of the task's form.

    Raises:
        GateRejectedError: a probability is no probability, or more answers than `ALLOWED_LOSS` lost their form.
    """
    parsed = 0
    for question, reply in zip(canary_questions(), replies, strict=True):
        check_probability(question.task, reply)
        parsed += _parses(question.task, reply.text)
    if parsed < parsed_before - ALLOWED_LOSS:
        text = f"it answers {parsed} of the canary's questions in their form; the one before answers {parsed_before}"
        raise GateRejectedError(GATE, parsed, text)
    return parsed


def check_probability(task: str, reply: Reply) -> None:
    """Check what no checkpoint that is whole gets wrong.

    Raises:
        GateRejectedError: the probability is no probability.
    """
    if not reply.has_probability:
        text = f"its answer to a question of {task} has no finite probability"
        raise GateRejectedError(GATE, reply.probability, text)


def _parses(task: str, text: str) -> bool:
    try:
        parse_answer(task, text)
    except InvalidInputError:
        return False
    return True


def _draw_room(box: Box, shade: int = 195) -> bytes:
    image = Image.new("RGB", (_SIZE, _SIZE), (200, 200, shade % 256))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, _SIZE // 2, _SIZE, _SIZE), fill=(120, 100, 80))
    draw.rectangle([corner * _SIZE // 1000 for corner in box.corners], fill=(190, 30, 30))
    return encode_png(np.asarray(image))
