"""What a gate says about a view."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from world2vlm.bundles import GateVerdict


@dataclass(frozen=True)
class Verdict:
    """What one gate found.

    Attributes:
        gate: the gate's name.
        figure: what decides.
        passed: whether the figure keeps its limits, and whatever else the gate asks.
        sentence: what was found, and what is needed.
        scores: further figures for `Frame.scores`, by the names that they have there.
    """

    gate: str
    figure: float
    passed: bool
    sentence: str
    scores: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> GateVerdict:
        """The same as bundles and the wire keep it: a reason only where it failed."""
        return GateVerdict(self.gate, self.figure, self.passed, "" if self.passed else self.sentence)


def decide(
    gate: str,
    figure: float,
    sentence: str,
    least: float | None = None,
    most: float | None = None,
    also: bool = True,
    scores: Mapping[str, float] | None = None,
) -> Verdict:
    """Return the verdict on a figure.

    Args:
        gate: the gate's name.
        figure: what decides.
        sentence: what was found, and what is needed.
        least: the least that is allowed; None = no limit.
        most: the most.
        also: whatever else must hold.
        scores: further figures.
    """
    kept = (least is None or figure >= least) and (most is None or figure <= most)
    return Verdict(gate, figure, bool(kept and also), sentence, scores or {})
