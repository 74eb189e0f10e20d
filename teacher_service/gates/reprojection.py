"""`reprojection`: a camera that moved, judged by what the anchor's depth says that it should see."""

from functools import cached_property

import cv2
import numpy as np

from teacher_service.gates.aligning import Prediction, align
from teacher_service.gates.pictures import fit, shrink
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import SIDE, View
from teacher_service.worlds.base import Photo
from teacher_service.worlds.warp import Relief
from world2vlm.cameras import Floats

# Pixels beside a hole that are not trusted.
_RIM = np.ones((5, 5), dtype=np.uint8)


class Foresight:
    """Predicts views from an anchor with depth.

    Args:
        anchor: the photo; its depth is known.
    """

    def __init__(self, anchor: Photo) -> None:
        if anchor.depth is None:
            raise ValueError("views cannot be foreseen without depth")
        self._anchor = anchor
        self._depth = anchor.depth

    @cached_property
    def _relief(self) -> tuple[Relief, Floats]:
        size, intrinsics = fit(self._depth.shape, self._anchor.intrinsics, SIDE)
        pixels = cv2.resize(self._anchor.pixels, size, interpolation=cv2.INTER_AREA)
        # The nearest value, not a mean: across an edge a mean is the depth of nothing.
        depth = cv2.resize(self._depth, size, interpolation=cv2.INTER_NEAREST)
        return Relief(np.asarray(pixels, np.uint8), np.asarray(depth, np.float32), intrinsics), intrinsics

    def predict(self, c2w: Floats) -> Prediction:
        """What a camera at `c2w`, float64 (4, 4) relative to the anchor, should see."""
        relief, intrinsics = self._relief
        warped = relief.view(c2w)
        seen = cv2.erode(warped.seen.astype(np.uint8), _RIM).astype(bool)
        return Prediction(shrink(warped.rgb, intrinsics, SIDE), warped.depth, seen)


def judge_reprojection(prediction: Prediction, view: View, settings: GateSettings) -> Verdict | None:
    """Compare a view with its prediction; None where too little of it is predicted.

    The figure is the error along the commanded move since the anchor, in metres.
    """
    share = float(prediction.seen.mean())
    offset = align(prediction, view.picture) if share >= settings.covisible_share else None
    if offset is None:
        return None
    commanded = view.c2w[:3, :3].T @ view.c2w[:3, 3]
    length = float(np.linalg.norm(commanded))
    error = abs(float(offset.translation @ commanded)) / length
    most = max(settings.move_error_m, settings.move_error_share * length)
    agrees = offset.agreement >= settings.move_agreement
    straight = not settings.move_turn_deg or offset.rotation_deg <= settings.move_turn_deg
    sentence = (
        f"{length:.2f} m from the anchor the camera is off by {error:.2f} m along its way and by "
        f"{offset.rotation_deg:.1f} degrees, and what it shows agrees by {offset.agreement:.2f} with what geometry "
        f"predicts; allowed are {most:.2f} m and {settings.move_turn_deg:g} degrees, needed is "
        f"{settings.move_agreement:g}"
    )
    scores = {
        "gate_reprojection_error_m": error,
        "gate_reprojection_error_deg": offset.rotation_deg,
        "gate_reprojection_agreement": offset.agreement,
    }
    return decide("reprojection", error, sentence, most=most, also=agrees and straight, scores=scores)
