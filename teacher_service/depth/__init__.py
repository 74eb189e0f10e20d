"""Depth from one photograph. Importing this imports no torch."""

from teacher_service.depth.base import DepthEstimator
from teacher_service.depth.tiny import TinyDepth

__all__ = ["DepthEstimator", "TinyDepth", "make_depth"]


def make_depth(model: str, device: str = "auto") -> DepthEstimator | None:
    """Return the estimator that an option names.

    Args:
        model: `tiny` for the one in this package, `none`, or a folder or hub name of a metric `transformers` model.
        device: torch device; `auto` is a GPU where there is one. The tiny one always runs on the CPU.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: a model that does not estimate metres, or whose weights are not safetensors.
    """
    if model == "none":
        return None
    if model == "tiny":
        return TinyDepth()
    from teacher_service.depth.pretrained import PretrainedDepth

    return PretrainedDepth(model, device)
