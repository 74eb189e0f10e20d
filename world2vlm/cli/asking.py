"""`world2vlm ask`: a question to the running student."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from world2vlm.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from world2vlm.tasks import Question


def ask(
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="The question; or use --task.")] = "",
    image: Annotated[list[Path] | None, typer.Option(help="One or two images, the earlier first.")] = None,
    task: Annotated[str, typer.Option(help="A1 to D4, with the options that the task needs.")] = "",
    actions: Annotated[str, typer.Option(help='What the camera does, for example "turn left 30 degrees".')] = "",
    object: Annotated[str, typer.Option(help="What the object is called.")] = "",
    box: Annotated[str, typer.Option(help="Where it is in the first image: x1, y1, x2, y2 in thousandths.")] = "",
    second_box: Annotated[str, typer.Option(help="Where it is in the second image.")] = "",
    url: Annotated[str, typer.Option(help="The student, host:port; default: from the settings.")] = "",
) -> None:
    """Ask the running student a question about one or two images."""
    from world2vlm.client import Student
    from world2vlm.settings import StudentSettings

    if bool(text) is bool(task):
        raise InvalidInputError("ask either a QUESTION or a --task")
    question = _question(task, actions, object, box, second_box) if task else text
    settings = StudentSettings.load()
    # Somebody waits at the terminal: where nobody answers, that is said at once.
    with Student(url := url or settings.student_url, tls=settings.client_tls, retry=False) as student:
        try:
            reply = student.ask(question, image or [])
        except UnavailableError as error:
            raise UnavailableError(f"{url} gives no answer, `world2vlm up` starts a student: {error}") from error
    print(f"{reply.text}\nprobability {reply.probability:.3f}, checkpoint version {reply.version}")


def _question(task: str, actions: str, object: str, box: str, second_box: str) -> "Question":
    from world2vlm.actions import parse_actions
    from world2vlm.boxes import parse_box
    from world2vlm.tasks import Question

    return Question(
        task,
        tuple(parse_actions(actions)) if actions else (),
        object,
        parse_box(box) if box else None,
        parse_box(second_box) if second_box else None,
    )
