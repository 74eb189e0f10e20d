"""Before a robot turns: will it lose sight of what it follows? A camera frame goes in, a typed answer comes out.

    python examples/ask_robot.py localhost:50052

Copy `loses_sight`, and put your camera in the place of `camera`.
"""

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from world2vlm.actions import Action, Primitive
from world2vlm.boxes import Box
from world2vlm.client import Student
from world2vlm.errors import World2VLMError
from world2vlm.tasks import Question

# The loop that steers the robot can wait so long, all attempts together.
DEADLINE_S = 0.5
# Chosen on recordings of one's own: at which probability is the answer right often enough to move on it?
SURE = 0.9


def loses_sight(
    student: Student, frame: NDArray[np.uint8], target: str, box: Box, plan: Sequence[Action]
) -> bool | None:
    """Whether the target leaves the view when the robot does what it plans; None: no answer, or none to rely on.

    Args:
        student: the client, made once and kept.
        frame: what the camera sees, uint8 (height, width, 3) RGB; OpenCV's frames are BGR: `frame[..., ::-1]`.
        target: what the object is called, a category that the student was trained on.
        box: where it is in the frame, in thousandths of its width and height.
        plan: metres and degrees, within what the student was trained on: beyond that it errs, and is sure of it.
    """
    question = Question("D2", actions=tuple(plan), object=target, box=box)
    try:
        reply = student.ask(question, [frame], timeout=DEADLINE_S)
    except World2VLMError as error:
        print(f"no answer: {error}", file=sys.stderr)
        return None
    print(
        f"{reply.text}, probability {reply.probability:.2f}, by version {reply.version} "
        f"in {reply.queue_ms + reply.generate_ms:.0f} ms"
    )
    return reply.yes if reply.probability >= SURE else None


def camera() -> NDArray[np.uint8]:
    """A frame of a grey room with a box in it."""
    frame = np.full((480, 640, 3), 200, dtype=np.uint8)
    frame[240:] = (120, 100, 80)
    frame[192:384, 64:256] = (190, 30, 30)
    return frame


def main(url: str) -> None:
    """Ask once and say what the robot does."""
    plan = (Action(Primitive.TURN_LEFT, 30),)
    with Student(url) as student:
        lost = loses_sight(student, camera(), "box", Box(100, 400, 400, 800), plan)
    print({True: "another way: the turn would lose it", False: "turning", None: "waiting: nothing to rely on"}[lost])


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["localhost:50052"])
