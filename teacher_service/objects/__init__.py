"""Objects on photographs: boxes from a detector, and which of them are the same object from frame to frame.

A detector names what it sees in one frame and knows nothing of the others. Two chairs are told apart by where they
are: `tracking` carries each object's visible surface through the anchor's depth into the other frames.
"""

from teacher_service.objects.detector import Detection, Detector
from teacher_service.objects.filters import ObjectFilters
from teacher_service.objects.known import KnownObjects
from teacher_service.objects.options import DetectorOptions, make_detector
from teacher_service.objects.tracking import ObjectTracker
from teacher_service.objects.world import WithObjects

__all__ = [
    "Detection",
    "Detector",
    "DetectorOptions",
    "KnownObjects",
    "ObjectFilters",
    "ObjectTracker",
    "WithObjects",
    "make_detector",
]
