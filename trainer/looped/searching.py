"""Spatial beam search (MindJourney, arXiv 2507.12508): extend paths by an action, imagine them, keep the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from PIL import Image

from trainer.looped.cases import Start
from trainer.looped.likeness import Likeness
from trainer.looped.worlds import World
from world2vlm.actions import Action, Primitive
from world2vlm.errors import GateRejectedError

_AXES = (
    (Primitive.FORWARD, Primitive.BACKWARD),
    (Primitive.LEFT, Primitive.RIGHT),
    (Primitive.TURN_LEFT, Primitive.TURN_RIGHT),
)


Reached = tuple[tuple[Action, ...], Image.Image]


@dataclass(frozen=True)
class Breadth:
    """How widely to search.

    Attributes:
        beam: paths that are kept after a step.
        step_m, step_deg: the grid of magnitudes.
        magnitudes: how many of them.
    """

    beam: int = 2
    step_m: float = 0.2
    step_deg: float = 10.0
    magnitudes: int = 6

    def most_calls(self, steps: int) -> int:
        """Calls of the world model that a search of `steps` steps makes at most.

        A call rolls one primitive out over all its magnitudes; only where a gate rejects that are there up to
        `magnitudes` of them. After the first step a path is not extended along the axis it just went. One more call
        follows the proposal.
        """
        return 1 + (6 + (steps - 1) * self.beam * 4) * self.magnitudes


@dataclass(frozen=True)
class Found:
    """A path, and how alike the view at its end is to the one looked for."""

    actions: tuple[Action, ...]
    likeness: float


def search(
    world: World,
    start: Start,
    target: Image.Image,
    likeness: Likeness,
    primitives: Sequence[Primitive],
    lengths: tuple[int, int],
    breadth: Breadth,
    proposal: tuple[Action, ...] = (),
) -> Found | None:
    """Look for the actions after which the camera sees `target`.

    Args:
        world: imagines.
        start: where the camera begins.
        target: the view at the end.
        likeness: what says which views come near.
        primitives: what the camera may have done.
        lengths: how many actions it took at least and at most.
        breadth: how widely to search.
        proposal: a path to try beside the grid; its beginnings are tried, too.

    Returns:
        The path whose end is most alike, the shorter one where two are equal; None where gates rejected every one.
    """
    least, most = lengths
    beams: list[Found] = [Found((), float("-inf"))]
    best: Found | None = None
    proposed = _rate(target, likeness, _follow(world, start, proposal[:most]))
    for step in range(1, most + 1):
        reached = [found for found in proposed if len(found.actions) == step] + [
            found
            for path in beams
            for primitive in primitives
            if not (path.actions and _axis(path.actions[-1].primitive) is _axis(primitive))
            for found in _rate(target, likeness, roll_out(world, start, path.actions, primitive, breadth))
        ]
        if not reached:
            break
        beams = sorted(reached, key=attrgetter("likeness"), reverse=True)[: breadth.beam]
        if step >= least and (best is None or beams[0].likeness > best.likeness):
            best = beams[0]
    return best


def roll_out(
    world: World, start: Start, path: tuple[Action, ...], primitive: Primitive, breadth: Breadth
) -> list[Reached]:
    """Imagine `path` followed by one primitive at every magnitude: the paths with the views at their ends.

    Where a gate rejects the way to the farthest, it is left out and the nearer ones are asked for again.
    """
    step = breadth.step_deg if primitive.is_turn else breadth.step_m
    for count in range(breadth.magnitudes, 0, -1):
        try:
            views = world.imagine(start, (*path, *[Action(primitive, step)] * count))[len(path) :]
        except GateRejectedError:
            continue
        ends = ((*path, Action(primitive, round(step * (index + 1), 9))) for index in range(count))
        return list(zip(ends, views, strict=True))
    return []


def _follow(world: World, start: Start, path: tuple[Action, ...]) -> list[Reached]:
    try:
        views = world.imagine(start, path) if path else []
    except GateRejectedError:
        return []
    return [(path[: index + 1], view) for index, view in enumerate(views)]


def _rate(target: Image.Image, likeness: Likeness, reached: Sequence[Reached]) -> list[Found]:
    if not reached:
        return []
    alike = likeness(target, [view for _, view in reached])
    return [Found(actions, float(value)) for (actions, _), value in zip(reached, alike, strict=True)]


def _axis(primitive: Primitive) -> tuple[Primitive, Primitive]:
    return next(axis for axis in _AXES if primitive in axis)
