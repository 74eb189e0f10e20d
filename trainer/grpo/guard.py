"""Stops a run that games its reward: what a reward can't see is watched."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

from trainer.grpo.config import GroupConfig
from world2vlm.errors import GateRejectedError


class Guard:
    """Watches means over the last `window` steps.

    Args:
        config: the limits.
    """

    def __init__(self, config: GroupConfig) -> None:
        self._limits = {"kl": config.max_kl, "length": config.max_length, "repetition": config.max_repetition}
        self._seen: dict[str, deque[float]] = {name: deque(maxlen=config.window) for name in self._limits}

    def check(self, step: int, figures: Mapping[str, float]) -> None:
        """Take in a step's `kl`, `length` and `repetition`.

        Raises:
            GateRejectedError: a mean over a whole window is above its limit.
        """
        for name, limit in self._limits.items():
            seen = self._seen[name]
            seen.append(figures[name])
            mean = sum(seen) / len(seen)
            # Negated: NaN must stop it, too.
            if len(seen) == seen.maxlen and not mean <= limit:
                raise GateRejectedError(
                    f"grpo_{name}",
                    mean,
                    f"GRPO was stopped at step {step}: {name} is {mean:.3f} over {len(seen)} steps, above {limit:g}; "
                    "the reward is being gamed, or the learning rates are too high",
                )


def repetition(answer: Sequence[int]) -> float:
    """Share of an answer's pairs of neighbouring tokens that the answer held before; 0 for one token."""
    pairs = list(pairwise(answer))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
