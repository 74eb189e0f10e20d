"""Which detections count, and which views of an object may be asked about: World2VLM's filters."""

from collections.abc import Iterable
from dataclasses import dataclass

from teacher_service.objects.detector import Detection, overlap


@dataclass(frozen=True)
class ObjectFilters:
    """World2VLM's thresholds, and those of the matching across views.

    Attributes:
        min_confidence: detections below this are none.
        min_area: share of the frame's pixels that a box must have at least to be asked about.
        max_area: share above which a box says too little about where the object is.
        edge_margin: share of the frame's width or height that a box keeps from the border: beyond it, it is cut off.
        max_overlap: of two detections that overlap more than this, the less certain one is the same thing again.
        min_match: overlap (IoU) of a detection with an object's reprojected extent that makes it that object.
        min_match_renamed: likewise where the detector calls it something else; such a view is not asked about.
        min_visible: share of an object's known surface that must be in view for it not to have disappeared.
    """

    min_confidence: float = 0.3
    min_area: float = 0.01
    max_area: float = 0.6
    edge_margin: float = 0.01
    max_overlap: float = 0.7
    min_match: float = 0.25
    min_match_renamed: float = 0.6
    min_visible: float = 0.02

    def select(self, detections: Iterable[Detection]) -> list[Detection]:
        """Return the certain detections, each thing once, the most certain first."""
        kept: list[Detection] = []
        for each in sorted(detections, key=lambda each: -each.score):
            sure = each.score >= self.min_confidence and each.label
            if sure and all(overlap(each.box, other.box) <= self.max_overlap for other in kept):
                kept.append(each)
        return kept

    def may_ask(self, detection: Detection, size: tuple[int, int]) -> bool:
        """Whether a detection in a frame of `size` (width, height) is of a fair size and not cut off by the border."""
        width, height = size
        x1, y1, x2, y2 = detection.box
        if not self.min_area <= (x2 - x1) * (y2 - y1) / (width * height) <= self.max_area:
            return False
        margin_x, margin_y = self.edge_margin * width, self.edge_margin * height
        return min(x1 - margin_x, y1 - margin_y, width - margin_x - x2, height - margin_y - y2) >= 0
