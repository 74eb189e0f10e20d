"""A checkpoint as an answerer."""

from collections.abc import Sequence
from pathlib import Path

from trainer.suites.answerers import Query
from world2vlm.vlm import Prompt
from world2vlm.vlm.loading import load_student


class CheckpointAnswerer:
    """A student that is asked in free text, greedily; it looks at one or two pictures.

    Args:
        folder: a whole checkpoint (`world2vlm.adapters`).

    Raises:
        InvalidInputError: no student can be loaded from it.
    """

    max_images = 2

    def __init__(self, folder: Path) -> None:
        self._student = load_student(folder)

    def answer(self, queries: Sequence[Query], max_new_tokens: int) -> list[str]:
        """See `Answerer.answer`.

        Raises:
            InvalidInputError: a question is empty or contains a control token.
        """
        prompts = [Prompt(query.images, query.text) for query in queries]
        return [reply.text for reply in self._student.answer(prompts, max_new_tokens)]
