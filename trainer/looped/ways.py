"""Ways to answer a forward task once its view is imagined: by that view, or by it and what the student says anyway."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from trainer.looped.cases import Case
from trainer.looped.likeness import BySight, by_pixels
from trainer.looped.reading import Reader
from world2vlm.boxes import Box, parse_box

# Cosine similarity of two views that have little in common; the same view has 1.
_UNLIKE = 0.8


@dataclass(frozen=True)
class Imagined:
    """A case with its imagined view, and who looks at it."""

    case: Case
    view: Image.Image
    reader: Reader
    sight: BySight


Evidence = Callable[[Imagined], float | str]
"""Returns the evidence for yes, or the answer itself where that is no yes or no."""


@dataclass(frozen=True)
class Way:
    """One of `WAYS`, by name; yes or no is yes from evidence `threshold` on."""

    name: str
    threshold: float = 0.5


def _by_sight(seen: Imagined) -> float:
    return float(seen.sight(seen.case.images[1], [seen.view])[0])


def _by_sight_and_belief(seen: Imagined) -> float:
    return ((_by_sight(seen) - _UNLIKE) / (1 - _UNLIKE) + _belief(seen)) / 2


def _by_pixels(seen: Imagined) -> float:
    return float(by_pixels(seen.case.images[1], [seen.view])[0])


def _named_box(seen: Imagined) -> str:
    return str(seen.reader.box(seen.view, _name(seen)) or seen.case.question.box)


def _asked(seen: Imagined) -> str:
    """The question itself, of the first and the imagined view."""
    return seen.reader.direct(seen.case.question, (seen.case.images[0], seen.view))


def _asked_twice(seen: Imagined) -> str:
    """The mean of two boxes: the question asked of the imagined view, and of the second image as it is."""
    boxes = _asked(seen), seen.reader.direct(seen.case.question, seen.case.images)
    middle = np.mean([parse_box(box).corners for box in boxes], axis=0)
    # Always up at a half: rounding to even could close a box of one thousandth.
    x1, y1, x2, y2 = np.floor(middle + 0.5).astype(int).tolist()
    return str(Box(x1, y1, x2, y2))


def _absence(seen: Imagined) -> float:
    return 1 - seen.reader.presence(seen.view, _name(seen))


def _absence_and_belief(seen: Imagined) -> float:
    return (_absence(seen) + _belief(seen)) / 2


def _same_name(seen: Imagined) -> float:
    question = seen.case.question
    return float(seen.reader.name(seen.view, question.object, _box(question.second_box)) == _name(seen))


def _same_name_and_belief(seen: Imagined) -> float:
    return (_same_name(seen) + _belief(seen)) / 2


def _belief(seen: Imagined) -> float:
    return seen.reader.belief(seen.case.question, seen.case.images)


def _name(seen: Imagined) -> str:
    question = seen.case.question
    return seen.reader.name(seen.case.images[0], question.object, _box(question.box))


def _box(box: Box | None) -> Box:
    assert box is not None  # the task's question has one
    return box


WAYS: Mapping[str, Mapping[str, Evidence]] = {
    "A4": {"sight": _by_sight, "pixels": _by_pixels, "sight and belief": _by_sight_and_belief},
    "D1": {"named": _named_box, "asked": _asked, "asked twice": _asked_twice},
    "D2": {"absence": _absence, "absence and belief": _absence_and_belief},
    "D4": {"named": _same_name, "named and belief": _same_name_and_belief},
}
"""By task; the first is for when nothing was fitted."""
