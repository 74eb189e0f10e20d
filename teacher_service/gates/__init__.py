"""Gates: checks that reject what a world got wrong, each with its figure. 0 turns a check off.

`trajectory` holds the checks of a path as a whole. All others judge one view after the other: `Gatekeeper`.
"""

from teacher_service.gates.trajectory import check_clearance, check_objects, check_observed

__all__ = ["check_clearance", "check_objects", "check_observed"]
