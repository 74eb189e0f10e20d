"""The depth of photos that come without it, each estimated once for all who ask."""

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from teacher_service.depth import DepthEstimator, make_depth
from teacher_service.recent import Recent
from teacher_service.worlds.base import Photo
from world2vlm.errors import NotFoundError

_KEPT = 8


class Depths:
    """The photos' own depth, or an estimated one. Several threads may ask at once.

    Args:
        estimator: for photos that come without depth.
        kept: photos whose estimates stay in memory.
    """

    def __init__(self, estimator: DepthEstimator, kept: int = _KEPT) -> None:
        self._estimator = estimator
        self._estimates: Recent[str, NDArray[np.float32]] = Recent(kept)

    @property
    def digest(self) -> str:
        """Sha256 of the estimator's weights."""
        return self._estimator.digest

    def of(self, photo: Photo) -> NDArray[np.float32]:
        """Return a photo's depth: float32 (height, width), metres along z; 0 or non-finite = unknown."""
        if photo.depth is not None:
            return photo.depth
        return self._estimates.get(photo.digest, lambda: self._estimator.estimate(photo.pixels, photo.intrinsics))


def make_depths(model: str, device: str) -> Depths | None:
    """Return what estimates depth by the model that a setting names; None for `none`. See `make_depth`.

    Raises:
        NotFoundError: no such model, or what it needs is not installed.
        InvalidInputError: a model that does not estimate metres, or whose weights are not safetensors.
    """
    if model != "none" and not (find_spec("torch") and find_spec("transformers")):
        raise NotFoundError("the setting depth_model needs torch and transformers: pip install 'world2vlm[teacher]'")
    estimator = make_depth(model, device)
    return None if estimator is None else Depths(estimator)
