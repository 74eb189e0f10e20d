"""What GRPO of a fine-tuned model does."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from trainer.grpo.config import GroupConfig, Reward
from trainer.ranges import AtLeastOne, NotNegative, Positive, Share


@dataclass(frozen=True)
class FinetuneGrpoConfig(GroupConfig):
    """Settings besides those of `GroupConfig`; the rest is as in the fine-tuning before it, but for dropout.

    The defaults are World2VLM's published ones where it states them: a balanced thousand of questions, four answers to
    each, its own reward, a KL weight of 0.01, a rate of 1e-6. The vision tower stays as the fine-tuning left it.

    Attributes:
        max_repetition: see `GroupConfig`; most models spell numbers in digits, so that a box of four repeats a third of
            its pairs.
        learning_rate: AdamW's.
        schedule: `constant` after the warm-up, or `cosine` to zero.
        warmup: share of the steps in which the rate rises linearly.
    """

    steps: AtLeastOne = 125
    prompts: AtLeastOne = 8
    group: Annotated[int, Field(ge=2)] = 4
    pool: NotNegative = 1000
    reward: Reward = "world2vlm"
    standardise: bool = True
    max_repetition: Share = 0.6
    learning_rate: Positive = 1e-6
    schedule: Literal["cosine", "constant"] = "constant"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
