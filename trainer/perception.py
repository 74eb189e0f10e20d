"""Questions about what is to be seen in a view, and nothing about motion.

The base student is made of them, and a round mixes some in (replay) so that the student keeps what it could do.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from world2vlm.boxes import SCALE, Box
from world2vlm.bundles import ObjectView

MIN_AREA = 0.006
SUFFIXES = ("", " in the first image", " in the second image")
_CLEARLY_LEFT = 40  # thousandths between two centres
_SIDE_EDGES = (380, 620)  # thousandths; between them is the middle

QuestionAnswer = tuple[str, str]


def name(view: ObjectView) -> str:
    """Colour and category; the category alone where nobody says the colour."""
    return f"{view.colour} {view.category}".lstrip()


def visible(views: Sequence[ObjectView]) -> list[ObjectView]:
    """The objects large enough to ask about, and named by colour and category alone."""
    names = Counter(map(name, views))
    return [view for view in views if view.area >= MIN_AREA and names[name(view)] == 1]


def where(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Grounding: the box of a named object."""
    chosen = _choose(visible(views), rng)
    return None if chosen is None else (f"Where is the {name(chosen)}{suffix}?", str(chosen.box))


def what(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Naming: what is in a box. The box is jittered, so every coordinate is seen as input."""
    chosen = _choose(visible(views), rng)
    if chosen is None:
        return None
    return f"What is in bbox {_jitter(chosen.box, rng)}{suffix}?", name(chosen)


def exists(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Presence: half yes; the no's are mostly one word away from something in view.

    Not asked of objects without a colour: what found them in a photograph may have missed others.
    """
    shown = visible(views)
    chosen = _choose(shown, rng)
    if chosen is None or not chosen.colour:
        return None
    if rng.random() < 0.5:
        return f"Is there a {name(chosen)}{suffix}?", "yes"
    other = _choose(shown, rng)
    asked = f"{rng.choice(COLOURS)} {chosen.category}"
    if other is not None and rng.random() < 0.5:
        asked = f"{other.colour} {rng.choice(CATEGORIES)}"
    if asked in {name(view) for view in views}:
        return None
    return f"Is there a {asked}{suffix}?", "no"


def left_of(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Left or right of another object, where that is clear."""
    shown = visible(views)
    if len(shown) < 2:
        return None
    a, b = rng.sample(shown, 2)
    gap = (b.box.x1 + b.box.x2 - a.box.x1 - a.box.x2) / 2
    if abs(gap) < _CLEARLY_LEFT:
        return None
    return f"Is the {name(a)} left of the {name(b)}{suffix}?", "yes" if gap > 0 else "no"


def count(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Counting a category; not asked where something is too small to tell, or without a colour (see `exists`)."""
    chosen = _choose(visible(views), rng)
    if chosen is None or not chosen.colour:
        return None
    same = [view for view in views if view.category == chosen.category]
    if any(view.area < MIN_AREA for view in same):
        return None
    return f"How many {chosen.category}s are there{suffix}?", str(len(same))


def side(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> QuestionAnswer | None:
    """Which third of the image an object is in."""
    chosen = _choose(visible(views), rng)
    if chosen is None:
        return None
    centre = (chosen.box.x1 + chosen.box.x2) / 2
    left, right = _SIDE_EDGES
    answer = "left" if centre < left else "right" if centre > right else "middle"
    return f"Which side is the {name(chosen)} on{suffix}?", answer


KINDS: dict[str, Callable[[Sequence[ObjectView], str, random.Random], QuestionAnswer | None]] = {
    "where": where,
    "what": what,
    "exists": exists,
    "left_of": left_of,
    "count": count,
    "side": side,
}
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
CATEGORIES = (
    "chair", "armchair", "sofa", "bench", "stool", "bed", "table", "desk", "bookshelf", "wardrobe", "cabinet",
    "fridge", "television", "piano", "bathtub", "toilet", "lamp", "plant", "vase", "ball", "box", "clock",
)  # fmt: skip


WEIGHTS = {"where": 3.0, "what": 2.0, "exists": 1.0, "left_of": 1.0, "count": 0.5, "side": 0.5}
SHORT_WEIGHT = 2.0


@dataclass(frozen=True)
class Asked:
    """A drawn question; `ordinal` and `weight` as in `trainer.packing.Example`."""

    question: str
    answer: str
    weight: float
    ordinal: bool


def ask(views: Sequence[ObjectView], suffix: str, rng: random.Random) -> Asked | None:
    """Draw a question of any kind (`WEIGHTS`) about a view; None where it can't be asked of this view."""
    kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    asked = KINDS[kind](views, suffix, rng)
    is_box = kind == "where"
    return asked and Asked(*asked, weight=1.0 if is_box else SHORT_WEIGHT, ordinal=is_box)


def _choose(views: Sequence[ObjectView], rng: random.Random) -> ObjectView | None:
    return rng.choice(views) if views else None


def _jitter(box: Box, rng: random.Random, amount: int = 8) -> Box:
    def shift(value: int) -> int:
        return min(SCALE, max(0, value + rng.randint(-amount, amount)))

    x1, y1, x2, y2 = map(shift, box.corners)
    return Box(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else box
