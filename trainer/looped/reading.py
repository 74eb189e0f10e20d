"""What the student sees in a single view: what its base was made of, and no question about motion."""

from PIL import Image

from trainer.perception import COLOURS
from world2vlm.boxes import Box, parse_box
from world2vlm.errors import InvalidInputError
from world2vlm.tasks import Question, get_task
from world2vlm.vlm import Generation, Prompt
from world2vlm.vlm.answering import Student


class Reader:
    """Asks the student, and counts.

    Attributes:
        questions: that were asked.
    """

    def __init__(self, student: Student) -> None:
        self._student = student
        self.questions = 0

    def name(self, view: Image.Image, category: str, box: Box) -> str:
        """The object in a box as the student can tell it from others of its category: `red chair`."""
        said = self._ask((view,), f"What is in bbox {box}?").text.split(" ")[0]
        return f"{said} {category}" if said in COLOURS else category

    def box(self, view: Image.Image, name: str) -> Box | None:
        """Where a named object is; None where the student gives no box."""
        try:
            return parse_box(self._ask((view,), f"Where is the {name}?").text)
        except InvalidInputError:
            return None

    def presence(self, view: Image.Image, name: str) -> float:
        """The probability that a named object is in view; 0.5 where the student says neither yes nor no."""
        said = self._ask((view,), f"Is there a {name}?")
        return {"yes": said.probability, "no": 1 - said.probability}.get(said.text, 0.5)

    def direct(self, question: Question, images: tuple[Image.Image, ...]) -> str:
        """The answer to a question of the eight tasks, as the student gives it alone."""
        return self._ask(images[: get_task(question.task).images], question.text, question.task).text

    def belief(self, question: Question, images: tuple[Image.Image, ...]) -> float:
        """The student's own probability of yes or true."""
        said = self._ask(images, question.text, question.task)
        return said.probability if said.text == get_task(question.task).words[0] else 1 - said.probability

    def _ask(self, images: tuple[Image.Image, ...], text: str, task: str = "") -> Generation:
        self.questions += 1
        return self._student.answer([Prompt(images, text, task)])[0]
