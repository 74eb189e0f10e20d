"""Follow objects from frame to frame, so that each keeps its id, and tell what is certain enough to be asked about."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from teacher_service.objects.detector import Corners, Detection, Detector
from teacher_service.objects.filters import ObjectFilters
from teacher_service.objects.matching import Expected, match
from teacher_service.objects.surfaces import Points, Surroundings, Viewpoint, extent
from world2vlm.boxes import SCALE, Box
from world2vlm.bundles import Frame, ObjectView
from world2vlm.cameras import Floats


@dataclass
class _Track:
    """One object: its id and label, its surface, whether all of it was in the frame then, and the frames that have it.

    The surface is that of the first frame which shows the whole object: later ones are less well known.
    """

    instance_id: int
    label: str
    surface: Points
    whole: bool
    frames: set[int] = field(default_factory=set)


class ObjectTracker:
    """Gives the frames of one trajectory their objects, one frame at a time, the anchor's own first.

    An object that is detected where its surface must appear keeps its id; a detection that is nobody's is a new
    object. An object that must be in view but was not found there, is cut off by the border or is called something
    else, stays with an `area` of 0: it has not disappeared, but nothing else is certain, so nothing is asked about it.
    It is left out where none of its surface is in view any more.

    Args:
        depth: of the anchor, float32 (height, width), metres along z, 0 or non-finite = unknown; None = not known.
        intrinsics: the anchor's K, float64 (3, 3), pixels.
        size: the anchor's (width, height) in pixels.
        detector: finds objects in single frames.
        filters: what counts, and what may be asked about.
    """

    def __init__(
        self,
        depth: NDArray[np.float32] | None,
        intrinsics: Floats,
        size: tuple[int, int],
        detector: Detector,
        filters: ObjectFilters,
    ) -> None:
        self._surroundings = Surroundings(depth, intrinsics, size)
        self._detector = detector
        self._filters = filters
        self._tracks: list[_Track] = []
        self._key_views: dict[int, Viewpoint] = {}
        self._count = 0

    def add(self, frame: Frame) -> Frame:
        """Return the next frame with its objects in view.

        Raises:
            InvalidInputError: the camera moved, and the anchor's depth is not known.
        """
        viewpoint = self._surroundings.view(frame)
        detections = self._filters.select(self._detector.detect(frame))
        shown = [viewpoint.visible(track.surface) for track in self._tracks]
        expected = [
            Expected(track.label, extent(place) if len(place) else None)
            for track, place in zip(self._tracks, shown, strict=True)
        ]
        found = match(expected, detections, self._filters)
        views = [
            self._known(track, place, detections[found[index]] if index in found else None, viewpoint)
            for index, (track, place) in enumerate(zip(self._tracks, shown, strict=True))
        ]
        taken = set(found.values())
        views += [self._new(one, viewpoint) for index, one in enumerate(detections) if index not in taken]
        if frame.key_frame:
            self._key_views[self._count] = replace(
                viewpoint, frame=replace(frame, png=b"", instances_png=b"", observed_png=b"")
            )
        self._count += 1
        return replace(frame, objects=tuple(view for view in views if view is not None))

    def _known(
        self, track: _Track, place: Points, detection: Detection | None, viewpoint: Viewpoint
    ) -> ObjectView | None:
        if detection is not None:
            same = track.label == detection.label
            if same and not track.whole and self._filters.may_ask(detection, viewpoint.frame.size):
                track.surface, track.whole = viewpoint.surface(detection), True
            return self._view(track, detection, viewpoint, same)
        if len(place) < max(1.0, self._filters.min_visible * len(track.surface)):
            return None
        track.frames.add(self._count)
        return _to_view(track, extent(place), viewpoint.frame.size, 0.0)

    def _new(self, detection: Detection, viewpoint: Viewpoint) -> ObjectView:
        whole = self._filters.may_ask(detection, viewpoint.frame.size)
        track = _Track(len(self._tracks) + 1, detection.label, viewpoint.surface(detection), whole)
        self._tracks.append(track)
        return self._view(track, detection, viewpoint, True)

    def _view(self, track: _Track, detection: Detection, viewpoint: Viewpoint, certain: bool) -> ObjectView:
        size = viewpoint.frame.size
        certain = certain and self._filters.may_ask(detection, size) and not self._overlooked(track)
        track.frames.add(self._count)
        return _to_view(track, detection.box, size, _share(detection, size) if certain else 0.0)

    def _overlooked(self, track: _Track) -> bool:
        """Whether an earlier key frame must show the object, but was sent without it.

        Those frames are gone, and a question about the two would say that the object disappears from one to the other.
        """
        least = max(1.0, self._filters.min_visible * len(track.surface))
        without = (view for index, view in self._key_views.items() if index not in track.frames)
        return any(len(view.visible(track.surface)) >= least for view in without)


def _share(detection: Detection, size: tuple[int, int]) -> float:
    """Share of the frame's pixels that show it: of its mask, or of its box where there is no mask."""
    if detection.mask is not None:
        return float(detection.mask.mean())
    x1, y1, x2, y2 = detection.box
    return (x2 - x1) * (y2 - y1) / (size[0] * size[1])


def _to_view(track: _Track, box: Corners, size: tuple[int, int], area: float) -> ObjectView:
    (x1, x2), (y1, y2) = (_thousandths(box[axis], box[axis + 2], size[axis]) for axis in (0, 1))
    return ObjectView(track.instance_id, track.label, "", Box(x1, y1, x2, y2), area)


def _thousandths(low: float, high: float, side: int) -> tuple[int, int]:
    """Both edges in thousandths of the side, within the frame and at least one apart."""
    first, last = (min(max(round(edge / side * SCALE), 0), SCALE) for edge in (low, high))
    first = min(first, SCALE - 1)
    return first, max(last, first + 1)
