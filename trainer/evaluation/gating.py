"""The gate before promotion: a checkpoint serves only if it is better for certain and has forgotten little."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.scored import Scored
from trainer.evaluation.statistics import Difference, paired_bootstrap

MAX_TASK_LOSS = 0.05
MIN_GROUNDING_SHARE = 0.8


@dataclass(frozen=True)
class Decision:
    """Whether to promote.

    Attributes:
        promote: true where no check failed.
        reasons: one sentence for each check that failed, with its figure.
        difference: what changed, with intervals.
    """

    promote: bool
    reasons: list[str]
    difference: Difference


def gate(
    before: Sequence[Scored],
    after: Sequence[Scored],
    baselines: Mapping[str, Mapping[str, float]],
    grounding_before: float,
    grounding_after: float,
    *,
    max_task_loss: float = MAX_TASK_LOSS,
    min_grounding_share: float = MIN_GROUNDING_SHARE,
    seed: int = 0,
) -> Decision:
    """Decide whether the student that gave `after` may replace the one that gave `before`.

    It may where its macro skill is higher with 95% confidence, no task's score falls by more than `max_task_loss`, and
    its grounding score keeps at least `min_grounding_share` of what it was.

    Raises:
        InvalidInputError: the two were not asked the same questions, or none.
    """
    difference = paired_bootstrap(before, after, baselines, seed)
    reasons = _check_macro(difference)
    reasons += [
        f"{task} fell by {-change.value:.3f}, more than {max_task_loss:.3f}"
        for task, change in difference.tasks.items()
        if not change.value >= -max_task_loss
    ]
    floor = min_grounding_share * grounding_before
    # Negated, here and above: NaN must fail.
    if not grounding_after >= floor:
        reasons.append(f"grounding is {grounding_after:.3f}, under {floor:.3f} ({min_grounding_share:.0%} of before)")
    return Decision(not reasons, reasons, difference)


def _check_macro(difference: Difference) -> list[str]:
    macro = difference.macro
    if macro.low > 0:
        return []
    return [f"macro skill not certainly higher: {macro.value:+.3f}, 95% interval {macro.low:+.3f} to {macro.high:+.3f}"]
