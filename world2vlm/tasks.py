"""World2VLM's eight tasks: question templates, answers and their strict parsing.

Inverse tasks (what did the camera do?): A1, A2, A3, D3. Forward tasks (what will be seen?): A4, D1, D2, D4.
The templates are World2VLM's, word for word, with one exception: the published generator also fills A1's `{DIR}` and
A2's `{TURN_DIR}` into the *question*, which gives away half of the answer; here the question lists the choices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from world2vlm.actions import Action, format_actions, parse_actions
from world2vlm.boxes import Box, parse_box
from world2vlm.errors import InvalidInputError

Answer = tuple[Action, ...] | Box | bool

IMAGE_TAG = "<image>"
_ALLOWED = "Allowed actions:\n- move forward/backward/left/right X meters\n- turn left/right X degrees"


class AnswerKind(Enum):
    """What a task's answer is, and so how it is parsed and scored."""

    MOTION = "motion"  # exactly one action
    SEQUENCE = "sequence"  # actions in order
    BOX = "box"
    BINARY = "binary"


@dataclass(frozen=True)
class Task:
    """One task type.

    Attributes:
        code: A1 to D4.
        images: how many images a question takes.
        kind: what its answer is.
        template: the question; slots are the names of `Question`'s fields.
        needs: the fields of `Question` that must be set; all others must not be.
        words: for binary answers, the words for (yes, no).
    """

    code: str
    images: int
    kind: AnswerKind
    template: str
    needs: tuple[str, ...] = ()
    words: tuple[str, str] = ("yes", "no")


@dataclass(frozen=True)
class Question:
    """A typed question about one or two images.

    Attributes:
        task: code of the task.
        actions: what the camera did or will do (A4, D1, D2, D4).
        object: what the object is called (D1-D4).
        box: where the object is in the first image (D1-D4).
        second_box: where it is in the second image (D3, D4).
    """

    task: str
    actions: tuple[Action, ...] = ()
    object: str = ""
    box: Box | None = None
    second_box: Box | None = None

    def __post_init__(self) -> None:
        task = get_task(self.task)
        for field in ("actions", "object", "box", "second_box"):
            if bool(getattr(self, field)) is not (field in task.needs):
                verb = "needs" if field in task.needs else "takes no"
                raise InvalidInputError(f"task {self.task} {verb} {field}")

    @property
    def text(self) -> str:
        """The question as the student reads it, without the image tags."""
        task = get_task(self.task)
        claim = _format_claim(self.actions) if self.task == "A4" else format_actions(self.actions)
        return task.template.format(actions=claim, object=self.object, box=self.box, second_box=self.second_box)


TASKS: dict[str, Task] = {
    task.code: task
    for task in (
        Task(
            "A1",
            2,
            AnswerKind.MOTION,
            "How many meters did the camera move to get the second image? "
            "Answer as: move forward/backward/left/right X meters.",
        ),
        Task(
            "A2",
            2,
            AnswerKind.MOTION,
            "How many degrees did the camera turn to get the second image? Answer as: turn left/right X degrees.",
        ),
        Task(
            "A3",
            2,
            AnswerKind.SEQUENCE,
            "To move from the first image to the second image, the camera used 2 or 3 actions in order. "
            f"Write the full action sequence using ';' as a separator. {_ALLOWED}",
        ),
        Task(
            "A4",
            2,
            AnswerKind.BINARY,
            'True or false: the camera did "{actions}" to get the second image.',
            needs=("actions",),
            words=("true", "false"),
        ),
        Task(
            "D1",
            2,
            AnswerKind.BOX,
            "In the first image, the {object} is at bbox {box}. Bboxes use normalized integer coordinates in [0,1000]. "
            'After the camera does "{actions}", give the bbox of the same {object} in the second image. '
            "Answer with bbox [x1, y1, x2, y2] only.",
            needs=("actions", "object", "box"),
        ),
        Task(
            "D2",
            1,
            AnswerKind.BINARY,
            'In the image, the {object} is at bbox {box}. After the camera does "{actions}", '
            "does this {object} disappear from view? Answer: yes or no.",
            needs=("actions", "object", "box"),
        ),
        Task(
            "D3",
            2,
            AnswerKind.SEQUENCE,
            "The {object} in the first image (bbox {box}) and the {object} in the second image (bbox {second_box}) "
            "are the same physical object. the camera used 1 or 2 actions in order. "
            f"Write the full action sequence using ';' as a separator. {_ALLOWED}",
            needs=("object", "box", "second_box"),
        ),
        Task(
            "D4",
            2,
            AnswerKind.BINARY,
            'In the first image, the {object} is at bbox {box}. After the camera does "{actions}", '
            "the second image shows a {object} at bbox {second_box}. "
            "Are these the same physical object instance? Answer: yes or no.",
            needs=("actions", "object", "box", "second_box"),
        ),
    )
}


def get_task(code: str) -> Task:
    """Look a task up by its code.

    Raises:
        InvalidInputError: no such task.
    """
    task = TASKS.get(code)
    if task is None:
        raise InvalidInputError(f"unknown task {code!r}; the tasks are {', '.join(TASKS)}")
    return task


def format_answer(code: str, answer: Answer) -> str:
    """Write an answer as the student should: `turn left 30 degrees`, `[1, 2, 3, 4]`, `yes`."""
    task = get_task(code)
    if isinstance(answer, bool):
        return task.words[0] if answer else task.words[1]
    return str(answer) if isinstance(answer, Box) else format_actions(answer)


def parse_answer(code: str, text: str) -> Answer:
    """Parse an answer strictly: the whole text must be one answer of the task's kind.

    Raises:
        InvalidInputError: anything else.
    """
    task = get_task(code)
    return _PARSERS[task.kind](task, text.strip())


def _parse_binary(task: Task, text: str) -> bool:
    word = text.rstrip(".").lower()
    if word not in task.words:
        raise InvalidInputError(f"not an answer to {task.code}: {text!r}; use {' or '.join(task.words)}")
    return word == task.words[0]


def _parse_motion(task: Task, text: str) -> tuple[Action, ...]:
    actions = tuple(parse_actions(text))
    turns = task.code == "A2"
    if len(actions) != 1 or actions[0].primitive.is_turn is not turns:
        raise InvalidInputError(f"task {task.code} is answered by one {'turn' if turns else 'move'}, not {text!r}")
    return actions


_PARSERS: dict[AnswerKind, Callable[[Task, str], Answer]] = {
    AnswerKind.BINARY: _parse_binary,
    AnswerKind.MOTION: _parse_motion,
    AnswerKind.SEQUENCE: lambda _task, text: tuple(parse_actions(text)),
    AnswerKind.BOX: lambda _task, text: parse_box(text),
}


def _format_claim(actions: Sequence[Action]) -> str:
    *head, last = map(str, actions)
    return f"{', '.join(head)} and {last}" if head else last
