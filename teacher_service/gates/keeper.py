"""Judges the views of one trajectory as they come: says which gates apply to each, and asks them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from teacher_service.gates.direction import judge_direction
from teacher_service.gates.looks import judge_cycle, judge_sharpness, judge_smoothness, sharpness
from teacher_service.gates.reprojection import Foresight, judge_reprojection
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.tracks import judge_tracks
from teacher_service.gates.turning import overlap
from teacher_service.gates.verdicts import Verdict, decide
from teacher_service.gates.views import View
from teacher_service.gates.yaw import Drift, judge_yaw
from teacher_service.worlds.base import Photo
from world2vlm.bundles import Frame
from world2vlm.cameras import MAX_STEP_M

# Two views are neighbours where the camera went no farther between them than a path's steps, and a little.
_NEAR_M = 1.5 * MAX_STEP_M
_SAME = 1e-4
_UNPROVEN = (
    "no proven view shows enough of this one to judge its pose: go in smaller steps, and ask for the frames between "
    "key frames, too"
)


@dataclass(frozen=True)
class _Proven:
    view: View
    drift: Drift


class Gatekeeper:
    """Judges one trajectory, view by view in its order. Not for use from several threads at once.

    Which gates apply: a view from where an earlier, proven one was taken goes through `cycle` where it looks the same
    way, and through `yaw` where the two overlap. Where neither can tell and the camera has moved, the view goes through
    `reprojection` if the anchor's depth is known or estimated and shows enough of it, else through `direction`.
    A view whose pose none of them could judge fails as unproven (`proof`). All go through `sharpness`, and neighbours
    through `smoothness` and, with objects, `tracks`. Only proven views prove others.

    Args:
        anchor: where the trajectory starts, as the world got it.
        settings: the limits.
        estimate: says a photo's depth, float32 (height, width) in metres along z. Asked once, where the anchor has
            none, and not before a view is to be judged that the camera moved to.
    """

    def __init__(
        self,
        anchor: Photo,
        settings: GateSettings | None = None,
        estimate: Callable[[Photo], NDArray[np.float32]] | None = None,
    ) -> None:
        self._settings = settings or GateSettings()
        self._photo, self._estimate = anchor, estimate
        self._anchor = View(anchor.pixels, anchor.intrinsics, np.eye(4))
        self._proven = [_Proven(self._anchor.reduced(), Drift())]
        self._before: View | None = None
        self._sharpness: dict[tuple[int, ...], float] = {}

    def judge(self, view: View) -> tuple[Verdict, ...]:
        """Judge the next view. Each gate that applies gives one verdict; all must pass."""
        poses, drift = self._judge_pose(view)
        verdicts = (*poses, *self._judge_looks(view))
        if all(verdict.passed for verdict in verdicts):
            self._before = view.reduced()
            self._proven.append(_Proven(self._before, drift))
        return verdicts

    @cached_property
    def _foresight(self) -> Foresight | None:
        if not self._settings.move_error_m:
            return None
        depth = self._photo.depth
        if depth is None and self._estimate is not None:
            depth = self._estimate(self._photo)
        known = depth is not None and bool((np.isfinite(depth) & (depth > 0)).any())
        return Foresight(replace(self._photo, depth=depth)) if known else None

    def _judge_pose(self, view: View) -> tuple[list[Verdict], Drift]:
        verdicts, drift = self._judge_standing(view)
        if not verdicts and not view.stands_where(self._anchor):
            prediction = self._foresight.predict(view.c2w) if self._foresight else None
            judged = judge_reprojection(prediction, view, self._settings) if prediction else None
            if judged is None and self._settings.direction_deg:
                judged = self._judge_direction(view)
            verdicts += [judged] if judged else []
        if not verdicts and self._settings.need_proof:
            verdicts.append(decide("proof", 0.0, _UNPROVEN, least=1.0))
        return verdicts, drift

    def _judge_standing(self, view: View) -> tuple[list[Verdict], Drift]:
        """Judge a view against the oldest proven one from the same place; the oldest carries the least drift."""
        settings = self._settings
        standing = [each for each in self._proven if view.stands_where(each.view)]
        same = next((each for each in standing if _looks_the_same_way(each.view, view)), None)
        if same and settings.cycle_psnr_db:
            return [judge_cycle(same.view, view, settings)], same.drift
        for each in standing if settings.turn_error_deg else ():
            rotation = view.seen_from(each.view)[:3, :3]
            if overlap(each.view.coarse, view.coarse, rotation) >= settings.covisible_share:
                verdict, drift = judge_yaw(each.view, view, each.drift, settings)
                return [verdict], drift
        return [], Drift()

    def _judge_direction(self, view: View) -> Verdict | None:
        """Judge a move from the start of the straight way that led here, else from the last proven view.

        None where the camera only turned since then, farther than `yaw` can tell: a turn has no direction.
        """
        last = self._proven[-1].view
        if view.stands_where(last):
            return None
        start = last
        for each in reversed(self._proven):
            if not _on_the_way(each.view, last, view):
                break
            start = each.view
        judged = judge_direction(start, view, self._settings)
        return judged if judged or start is last else judge_direction(last, view, self._settings)

    def _judge_looks(self, view: View) -> list[Verdict]:
        settings, before = self._settings, self._before
        verdicts: list[Verdict | None] = []
        if settings.least_sharpness or settings.most_sharpness:
            verdicts.append(judge_sharpness(self._anchors_sharpness(view), view, settings))
        if before is not None and np.linalg.norm(view.c2w[:3, 3] - before.c2w[:3, 3]) <= _NEAR_M:
            verdicts.append(judge_smoothness(before, view, settings) if settings.jump else None)
            verdicts.append(judge_tracks(before, view, settings) if settings.track_shift else None)
        return [verdict for verdict in verdicts if verdict]

    def _anchors_sharpness(self, view: View) -> float:
        """The anchor's sharpness at the view's size."""
        shape = view.pixels.shape
        if shape not in self._sharpness:
            pixels = self._anchor.pixels
            if pixels.shape != shape:
                pixels = np.asarray(cv2.resize(pixels, shape[1::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
            self._sharpness[shape] = sharpness(pixels)
        return self._sharpness[shape]


def with_verdicts(frame: Frame, verdicts: Sequence[Verdict]) -> Frame:
    """Return a frame with its verdicts, and their figures among its scores."""
    scores = {name: figure for verdict in verdicts for name, figure in verdict.scores.items()}
    return replace(
        frame, scores={**frame.scores, **scores}, gates=(*frame.gates, *(verdict.record() for verdict in verdicts))
    )


def _looks_the_same_way(first: View, second: View) -> bool:
    """Whether both show the same part of the world from the same place."""
    turned = np.abs(second.seen_from(first)[:3, :3] - np.eye(3)).max() < _SAME
    lenses = [each.intrinsics[:2] / np.array(each.pixels.shape[1::-1])[:, None] for each in (first, second)]
    return bool(turned and np.abs(lenses[0] - lenses[1]).max() < 1e-2)


def _on_the_way(earlier: View, last: View, view: View) -> bool:
    """Whether a straight move without a turn leads from an earlier view to this one, through the last."""
    pose = view.seen_from(earlier)
    if np.abs(pose[:3, :3] - np.eye(3)).max() > _SAME or np.linalg.norm(pose[:3, 3]) < _SAME:
        return False
    step = view.seen_from(last)[:3, 3]
    return bool(np.linalg.norm(np.cross(pose[:3, 3], step)) < 1e-3 * np.linalg.norm(step) and pose[:3, 3] @ step > 0)
