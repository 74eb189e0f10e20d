"""Typed questions and answers as JSON, for protocols that have no messages of their own for them.

A question is an object of what its task needs, an answer one of its kind:

    {"actions": [{"primitive": "move forward", "magnitude": 0.5}], "object": "red box",
     "box": [250, 400, 625, 775], "second_box": [344, 438, 594, 688]}
    {"actions": [...]} or {"box": [...]} or {"yes": true}
"""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import Answer, Question


class _ActionFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    primitive: Primitive
    magnitude: float


class _QuestionFields(BaseModel):
    model_config = ConfigDict(extra="forbid")

    actions: tuple[_ActionFields, ...] = ()
    object: str = ""
    box: tuple[int, int, int, int] | None = None
    second_box: tuple[int, int, int, int] | None = None


def read_question(task: str, text: str) -> Question | str:
    """Read a task's question from its JSON; without a task the text is the question.

    Raises:
        InvalidInputError: no such task, or not the JSON of a question of it.
    """
    if not task:
        return text
    try:
        fields = _QuestionFields.model_validate_json(text.strip() or "{}", strict=True)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors()[:3])
        raise InvalidInputError(f"QUESTION is not the JSON of a question of {task[:8]!r}: {problems}") from error
    return Question(
        task=task,
        actions=tuple(Action(action.primitive, action.magnitude) for action in fields.actions),
        object=fields.object,
        box=Box(*fields.box) if fields.box else None,
        second_box=Box(*fields.second_box) if fields.second_box else None,
    )


def write_answer(answer: Answer | None) -> str:
    """An answer as JSON; empty where there is none."""
    return "" if answer is None else json.dumps(_fields(answer))


def _fields(answer: Answer) -> dict[str, Any]:
    match answer:
        case bool():
            return {"yes": answer}
        case Box():
            return {"box": answer.corners}
        case _:
            return {"actions": [{"primitive": a.primitive.value, "magnitude": a.magnitude} for a in answer]}
