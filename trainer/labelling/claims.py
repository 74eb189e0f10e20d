"""False claims about what the camera did (task A4): wrong enough to be seen, plausible enough not to be guessed."""

import random
from collections.abc import Sequence

from world2vlm.actions import Action, canonicalise

MIN_GAP_M = 0.4
MIN_GAP_DEG = 20.0
MAX_RATIO = 0.6


def is_clearly_different(a: Action, b: Action) -> bool:
    """Whether two actions can be told apart by eye.

    Another primitive always can; the same one where the smaller magnitude is at most 0.6 of the larger and they differ
    by at least 0.4 m or 20 degrees.
    """
    if a.primitive is not b.primitive:
        return True
    small, large = sorted((a.magnitude, b.magnitude))
    gap = MIN_GAP_DEG if a.primitive.is_turn else MIN_GAP_M
    return small <= MAX_RATIO * large and large - small >= gap - 1e-9


def false_claim(actions: Sequence[Action], pool: Sequence[Action], rng: random.Random) -> tuple[Action, ...]:
    """Change one action into something clearly different, so that the claim is false and stays canonical.

    Half of the time the action goes the opposite way, else another one of the pool takes its place.

    Args:
        actions: what the camera did, canonical.
        pool: actions that other transitions took: claims drawn from it are distributed as the true ones are.
        rng: the source of chance.
    """
    index = rng.randrange(len(actions))
    true = actions[index]
    opposite = Action(true.primitive.opposite, true.magnitude)
    others = [
        claim
        for claim in (_replace(actions, index, other) for other in pool if is_clearly_different(true, other))
        if claim[index].primitive is not opposite.primitive and canonicalise(claim) == list(claim)
    ]
    if not others or rng.random() < 0.5:
        return _replace(actions, index, opposite)
    same_primitive = [claim for claim in others if claim[index].primitive is true.primitive]
    # Wrong magnitudes are the rarest in a pool and the hardest to tell: take one wherever there is one.
    return rng.choice(same_primitive or others)


def _replace(actions: Sequence[Action], index: int, action: Action) -> tuple[Action, ...]:
    return (*actions[:index], action, *actions[index + 1 :])
