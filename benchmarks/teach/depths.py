"""What the gates know of the depth of a rendered anchor."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.teach.sabotage import RoomPlace
from teacher_service.depth import TinyDepth

DepthOf = Callable[[RoomPlace], NDArray[np.float32] | None]
"""The depth of an anchor, float32 (height, width) in metres along z; None = nothing is known."""


def known(room: RoomPlace) -> NDArray[np.float32]:
    """The renderer's own."""
    return room.depth()


def unknown(room: RoomPlace) -> None:
    """None."""


def estimated(room: RoomPlace) -> NDArray[np.float32]:
    """What the tiny network makes of the picture, as the gates' `estimate_depth` does by default."""
    return _tiny().estimate(room.shoot(np.eye(4)), room.intrinsics)


@cache
def _tiny() -> TinyDepth:
    return TinyDepth()
