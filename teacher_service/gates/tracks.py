"""`tracks`: objects that keep their ids stay where they are, and as large, as far as the camera's way lets them."""

import numpy as np

from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import View
from world2vlm.boxes import Box
from world2vlm.bundles import ObjectView

# Thousandths of the image: the middle and the size of a smaller box, or of one that the border cuts, say little.
_LEAST_SIDE = 20


def judge_tracks(before: View, view: View, settings: GateSettings) -> Verdict | None:
    """Compare the boxes of the objects that two neighbouring views both show whole; None where there are none."""
    earlier = {each.instance_id: each for each in before.objects}
    pairs = [(earlier[each.instance_id], each) for each in view.objects if each.instance_id in earlier]
    # Without an area an object is known to be somewhere there, but its box is a guess.
    pairs = [(first, second) for first, second in pairs if first.area and second.area]
    jumps = [
        (_shift(first.box, second.box, before, view), _growth(first.box, second.box), second)
        for first, second in pairs
        if _is_whole(first.box) and _is_whole(second.box)
    ]
    if not jumps:
        return None
    shift, _, jumper = max(jumps, key=lambda each: each[0])
    growth = max(each[1] for each in jumps)
    renamed = sorted({_name(second) for first, second in pairs if first.category != second.category})
    sentence = (
        f"the {jumper.category} jumps by {shift:.0f} thousandths of the image, and an object grows or shrinks "
        f"{growth:.1f}-fold; at most {settings.track_shift:g} and {settings.track_growth:g} are allowed"
    )
    if renamed:
        sentence += f"; {', '.join(renamed)} was something else before"
    steady = (not settings.track_growth or growth <= settings.track_growth) and not renamed
    scores = {"gate_tracks_shift": shift, "gate_tracks_growth": growth}
    return decide("tracks", shift, sentence, most=settings.track_shift, also=steady, scores=scores)


def _name(item: ObjectView) -> str:
    return f"{item.category} {item.instance_id}"


def _is_whole(box: Box) -> bool:
    x1, y1, x2, y2 = box.corners
    return not box.touches_edge() and min(x2 - x1, y2 - y1) >= _LEAST_SIDE


def _shift(first: Box, second: Box, before: View, view: View) -> float:
    """Thousandths between where a box's middle is and where the turn alone would have put it."""
    height, width = before.pixels.shape[:2]
    x1, y1, x2, y2 = first.corners
    ray = np.linalg.solve(before.intrinsics, [(x1 + x2) / 2000 * width, (y1 + y2) / 2000 * height, 1.0])
    x, y, z = view.intrinsics @ (view.seen_from(before)[:3, :3].T @ ray)
    height, width = view.pixels.shape[:2]
    place = np.array([x / width, y / height]) / max(z, 1e-6) * 1000
    x1, y1, x2, y2 = second.corners
    return float(np.linalg.norm(place - [(x1 + x2) / 2, (y1 + y2) / 2]))


def _growth(first: Box, second: Box) -> float:
    sides = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (first.corners, second.corners)]
    ratios = [now / was for was, now in zip(*sides, strict=True)]
    return float(max(max(ratio, 1 / ratio) for ratio in ratios))
