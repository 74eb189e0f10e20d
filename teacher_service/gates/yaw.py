"""`yaw`: a camera that only turned, judged by the homography K R K^-1; needs neither depth nor weights."""

from dataclasses import dataclass

from teacher_service.gates.settings import GateSettings
from teacher_service.gates.turning import axis_angle, measure_turn
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import View


@dataclass(frozen=True)
class Drift:
    """What a reference is known to be off by already: signed degrees, and the turns over which they added up."""

    error_deg: float = 0.0
    turned_deg: float = 0.0


# Degrees below which the opposite turn and none are too much alike to be told from the commanded one.
_LEAST_TURN = 3.0


def judge_yaw(reference: View, view: View, drift: Drift, settings: GateSettings) -> tuple[Verdict, Drift]:
    """Compare the turn between two views with the commanded one.

    Args:
        reference: an earlier view from the same place that shows part of the same.
        view: the view to judge.
        drift: the reference's own.
        settings: the limits.

    Returns:
        The verdict, its figure the error in degrees since the anchor, and the view's drift.
    """
    axis, commanded = axis_angle(view.seen_from(reference)[:3, :3])
    turn = measure_turn((reference.coarse, view.coarse), (reference.fine, view.fine), axis, commanded)
    # Along y, positive is to the right whatever the axis that the commanded turn is about.
    right = -1.0 if axis[1] < 0 else 1.0
    drift = Drift(drift.error_deg + right * (turn.angle_deg - commanded), drift.turned_deg + commanded)
    error = abs(drift.error_deg)
    most = max(settings.turn_error_deg, settings.turn_error_share * drift.turned_deg)
    margin = min(turn.margins_db, default=float("inf"))
    distinct = commanded < _LEAST_TURN or margin >= settings.turn_margin_db
    agrees = turn.agreement >= settings.turn_agreement
    sentence = (
        f"the camera should have turned by {right * commanded:+.1f} degrees and turned by "
        f"{right * turn.angle_deg:+.1f}; since the anchor it is off by {error:.1f}, and at most {most:.1f} are allowed"
    )
    if not distinct:
        sentence += (
            f"; that explains the view {margin:.1f} dB better than another turn, not {settings.turn_margin_db:g}"
        )
    if not agrees:
        sentence += f"; what both show agrees by {turn.agreement:.2f} at best, not {settings.turn_agreement:g}"
    scores = {"gate_yaw_error_deg": error, "gate_yaw_agreement": turn.agreement}
    return decide("yaw", error, sentence, most=most, also=distinct and agrees, scores=scores), drift
