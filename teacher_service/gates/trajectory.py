"""Checks of a trajectory as a whole, before or while it is made, each with the figure that failed. 0 turns one off."""

from collections.abc import Iterable

import numpy as np

from world2vlm.bundles import ObjectView
from world2vlm.cameras import Floats
from world2vlm.errors import GateRejectedError


def check_clearance(clearances: Floats, least_m: float) -> float:
    """`collision`: the camera keeps its distance from walls and furniture all along its way.

    Args:
        clearances: metres to the nearest obstacle at points along the path.
        least_m: the least distance allowed.

    Returns:
        The least distance found.

    Raises:
        GateRejectedError: it is under `least_m`.
    """
    least = float(np.min(clearances))
    if least_m > 0 and least < least_m:
        how = (
            f"comes within {least:.2f} m of an obstacle"
            if least >= 0
            else "goes through a wall or a piece of furniture"
        )
        raise GateRejectedError("collision", least, f"the path {how}; at least {least_m:g} m of room are needed")
    return least


def check_objects(objects: Iterable[ObjectView], least_area: float, index: int) -> None:
    """`empty_view`: a key frame shows at least one object at some size.

    Args:
        objects: what is in view.
        least_area: the share of the image's pixels that the largest must have.
        index: the frame's, for the message.

    Raises:
        GateRejectedError: all are smaller, or there are none.
    """
    largest = max((view.area for view in objects), default=0.0)
    if largest < least_area:
        raise GateRejectedError(
            "empty_view",
            largest,
            f"the largest object in frame {index} covers {largest:.2%} of it; at least {least_area:.2%} are needed",
        )


def check_observed(share: float, least_share: float, index: int) -> None:
    """`unobserved`: enough of a frame is backed by the photo, and not filled in.

    Raises:
        GateRejectedError: `share` is under `least_share`.
    """
    if share < least_share:
        raise GateRejectedError(
            "unobserved",
            share,
            f"the photo shows {share:.1%} of what is in frame {index}; at least {least_share:.1%} are needed: turn or "
            f"move less",
        )
