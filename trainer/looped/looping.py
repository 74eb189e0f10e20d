"""The student with a world model in the loop: it imagines before it answers."""

from collections.abc import Mapping

from trainer.looped.cases import Case
from trainer.looped.likeness import BySight
from trainer.looped.reading import Reader
from trainer.looped.searching import Breadth, search
from trainer.looped.ways import WAYS, Imagined, Way
from trainer.looped.worlds import CountedWorld, World
from world2vlm.actions import Primitive
from world2vlm.errors import GateRejectedError
from world2vlm.tasks import format_answer, parse_answer
from world2vlm.vlm import StudentModel
from world2vlm.vlm.answering import Student

_MOVES = (Primitive.FORWARD, Primitive.BACKWARD, Primitive.LEFT, Primitive.RIGHT)
_TURNS = (Primitive.TURN_LEFT, Primitive.TURN_RIGHT)
# What the questions themselves say: which primitives, and how many actions at least and at most.
_SEARCHES = {
    "A1": (_MOVES, (1, 1)),
    "A2": (_TURNS, (1, 1)),
    "A3": ((*_MOVES, *_TURNS), (2, 3)),
    "D3": ((*_MOVES, *_TURNS), (1, 2)),
}


class Looper:
    """Answers questions with a student and a world model.

    The inverse tasks (A1, A2, A3, D3) are a beam search for the camera's path; the student's own answer is tried beside
    the grid. The forward tasks (A4, D1, D2, D4) name the actions: their view is imagined, and the answer is read from
    it. Where every path is rejected by a gate, the student answers alone.

    Args:
        student: who looks.
        answering: who is asked: the same checkpoint on whatever runs it fastest.
        world: who imagines.
        ways: by forward task, see `trainer.looped.fitting`; the first of `WAYS` where a task is missing.
        breadth: of the search.

    Attributes:
        world: counts what was imagined.
        reader: counts what the student was asked.
    """

    def __init__(
        self,
        student: StudentModel,
        answering: Student,
        world: World,
        ways: Mapping[str, Way] | None = None,
        breadth: Breadth | None = None,
    ) -> None:
        self.world = CountedWorld(world)
        self.reader = Reader(answering)
        self.sight = BySight(student)
        self._ways = dict(ways or {})
        self._breadth = breadth or Breadth()

    def answer(self, case: Case) -> str:
        """The answer as text.

        Raises:
            UnavailableError: the teacher does not answer.
        """
        task = case.question.task
        if task in _SEARCHES:
            return self._find(case)
        seen = self.imagine(case)
        if seen is None:
            return self.reader.direct(case.question, case.images)
        way = self._ways.get(task, Way(next(iter(WAYS[task]))))
        found = WAYS[task][way.name](seen)
        return found if isinstance(found, str) else format_answer(task, found >= way.threshold)

    def imagine(self, case: Case) -> Imagined | None:
        """A case with the view after the actions that its question names; None where a gate rejects them."""
        try:
            view = self.world.imagine(case.start, case.question.actions)[-1]
        except GateRejectedError:
            return None
        return Imagined(case, view, self.reader, self.sight)

    def _find(self, case: Case) -> str:
        task = case.question.task
        own = self.reader.direct(case.question, case.images)
        proposal = parse_answer(task, own)
        assert isinstance(proposal, tuple)  # the grammar allows nothing else
        primitives, lengths = _SEARCHES[task]
        found = search(self.world, case.start, case.images[1], self.sight, primitives, lengths, self._breadth, proposal)
        return own if found is None else format_answer(task, found.actions)
