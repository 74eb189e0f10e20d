"""`sharpness`, `smoothness` and `cycle`: what a view looks like beside the anchor, the view before, and itself."""

import cv2
import numpy as np
from numpy.typing import NDArray

from teacher_service.gates.pictures import turned
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import View

# Standard deviations in pixels that bound the finest band of detail and the next.
_FINEST, _NEXT = 0.7, 1.6
# Of what differs between two views only broad shades count, blurred by this share of the image's side.
_BROAD = 0.05
_LEAST_CONTRAST = 4.0


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Energy of the finest detail over that of the next coarser; what is shown matters little to it, blur much."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(grey, (0, 0), _FINEST)
    smoother = cv2.GaussianBlur(smooth, (0, 0), _NEXT)
    # A picture without any detail is as sharp as another: a hundredth of a grey value counts for nothing.
    return float((np.square(grey - smooth).mean() + 1e-4) / (np.square(smooth - smoother).mean() + 1e-4))


def judge_sharpness(anchors: float, view: View, settings: GateSettings) -> Verdict:
    """Compare a view's sharpness with its anchor's."""
    figure = sharpness(view.pixels) / anchors
    least, most = settings.least_sharpness or None, settings.most_sharpness or None
    sentence = f"the view is {figure:.2f} times as sharp as the anchor; allowed is {least or 0:g} to {most or np.inf:g}"
    return decide("sharpness", figure, sentence, least, most, scores={"gate_sharpness": figure})


def judge_smoothness(before: View, view: View, settings: GateSettings) -> Verdict | None:
    """Compare the broad shades of a view with those of the one before, turned; None where they share too little."""
    rotation = view.seen_from(before)[None, :3, :3]
    warped, inside = turned(before.picture, view.picture, rotation)
    known = cv2.erode(inside[0].astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    if known.mean() < settings.covisible_share:
        return None
    blur = _BROAD * max(view.picture.shape)
    # Outside of what both show, both are the same.
    first = cv2.GaussianBlur(np.where(known, warped[0], view.picture.grey), (0, 0), blur)[known]
    second = cv2.GaussianBlur(view.picture.grey, (0, 0), blur)[known]
    brightness = (float(second.mean()) + 1) / (float(first.mean()) + 1)
    factor = max(brightness, 1 / brightness)
    contrast = max(float(second.std()), float(first.std()), _LEAST_CONTRAST)
    figure = float(np.abs(second - brightness * first).mean()) / contrast
    same = not settings.exposure or factor <= settings.exposure
    sentence = (
        f"the view differs from the one before by {figure:.2f} of its contrast and is {factor:.2f} times as bright or "
        f"dark; at most {settings.jump:g} and {settings.exposure:g} are allowed"
    )
    scores = {"gate_smoothness": figure, "gate_exposure": factor}
    return decide("smoothness", figure, sentence, most=settings.jump, also=same, scores=scores)


def judge_cycle(earlier: View, view: View, settings: GateSettings) -> Verdict:
    """Compare a view with an earlier one from the same pose, by the peak signal-to-noise ratio of their grey values."""
    first, second = earlier.picture.grey, view.picture.grey
    if first.shape != second.shape:
        first = np.asarray(cv2.resize(first, second.shape[::-1], interpolation=cv2.INTER_AREA))
    error = float(np.square(first - second).mean())
    figure = 10 * float(np.log10(255**2 / max(error, 1e-2)))
    sentence = (
        f"a place seen again looks as before within {figure:.1f} dB; at least {settings.cycle_psnr_db:g} are needed"
    )
    return decide("cycle", figure, sentence, least=settings.cycle_psnr_db, scores={"gate_cycle_psnr_db": figure})
