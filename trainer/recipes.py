"""Training recipes by name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from world2vlm.errors import InvalidInputError
from world2vlm.rounds import RoundPlan

if TYPE_CHECKING:
    from trainer.sft_config import SftConfig

# What each changes in the defaults of `SftConfig`.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sft": {},
    # Teaches nothing: it shows quickly that a round goes through.
    "smoke": {"clips": 2, "questions": 2, "snapshot_every": 10},
}


def recipe_config(plan: RoundPlan, threads: int) -> "SftConfig":
    """The training configuration of a round.

    Raises:
        InvalidInputError: no such recipe.
    """
    if plan.recipe not in RECIPES:
        raise InvalidInputError(f"unknown recipe {plan.recipe!r}; known are {', '.join(RECIPES)}")
    from trainer.sft_config import SftConfig

    return replace(SftConfig(), steps=plan.steps, seed=plan.seed, threads=threads, **RECIPES[plan.recipe])
