"""The gate before promotion: a checkpoint serves only if it is better for certain and has forgotten little."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from trainer.evaluation.scored import Scored
from trainer.evaluation.statistics import Difference, paired_bootstrap

MAX_TASK_LOSS = 0.05
MIN_PROBE_SHARES: Mapping[str, float] = {"grounding": 0.8, "naming": 0.65}
"""What must be kept of each thing the base student could do; naming suffers most (docs/adr/0004)."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote.

    Attributes:
        promote: true where no check failed.
        reasons: one sentence for each check that failed, with its figure.
        difference: what changed, with intervals.
        scenes: how many scenes the questions come from; one has no interval, though figures stand for it.
    """

    promote: bool
    reasons: list[str]
    difference: Difference
    scenes: int


def gate(
    before: Sequence[Scored],
    after: Sequence[Scored],
    baselines: Mapping[str, Mapping[str, float]],
    probes_before: Mapping[str, float],
    probes_after: Mapping[str, float],
    *,
    max_task_loss: float = MAX_TASK_LOSS,
    min_probe_shares: Mapping[str, float] = MIN_PROBE_SHARES,
    min_scenes: int = 1,
    silent: Mapping[str, str] = MappingProxyType({}),
    seed: int = 0,
) -> Decision:
    """Decide whether the student that gave `after` may replace the one that gave `before`.

    It may where its macro skill is higher with 95% confidence, no task's score falls by more than `max_task_loss`, and
    of each probe of what it could do before it keeps at least its share. A probe that nothing could be asked for is
    missing on both sides and checks nothing. An interval over fewer than `min_scenes` scenes proves nothing; `silent`
    says of the held-out scenes by name why there may be no question about each.

    Raises:
        InvalidInputError: the two were not asked the same questions, or none.
    """
    difference = paired_bootstrap(before, after, baselines, seed)
    scenes = {item.scene for item in after}
    reasons = _check_scenes(scenes, min_scenes, silent) + _check_macro(difference, len(scenes))
    reasons += [
        f"{task} fell by {-change.value:.3f}, more than {max_task_loss:.3f}"
        for task, change in difference.tasks.items()
        if not change.value >= -max_task_loss
    ]
    for name in [name for name in min_probe_shares if name in probes_before]:
        share = min_probe_shares[name]
        floor = share * probes_before[name]
        # Negated, here and above: NaN must fail.
        if not probes_after[name] >= floor:
            reasons.append(f"{name} is {probes_after[name]:.3f}, under {floor:.3f} ({share:.0%} of before)")
    return Decision(not reasons, reasons, difference, len(scenes))


def _check_scenes(scenes: Collection[str], least: int, silent: Mapping[str, str]) -> list[str]:
    if len(scenes) >= least:
        return []
    whys = [why for scene, why in silent.items() if scene not in scenes]
    if whys:
        found = f"{len(scenes)} of the {len(scenes) + len(whys)} held-out places gave questions ({'; '.join(whys)})"
        remedy = "add photographs of more places, and several of each"
    else:
        found = f"{len(scenes)} held-out place(s) are too few to be certain"
        remedy = "add photographs of more places"
    return [f"{found}; {least} are needed: {remedy}"]


def _check_macro(difference: Difference, scenes: int) -> list[str]:
    macro = difference.macro
    if macro.low > 0:
        return []
    if scenes == 1:
        return [f"macro skill not higher: {macro.value:+.3f}, on one place, which has no interval"]
    return [f"macro skill not certainly higher: {macro.value:+.3f}, 95% interval {macro.low:+.3f} to {macro.high:+.3f}"]
