"""Paths in metres as Stable Virtual Camera takes them, without anything of its package."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from world2vlm.cameras import Floats

# Its own rules, `seva.eval.get_value_dict`: what is farther out than that does not count for the mean, and a camera
# that is nearer to the mean than that counts as standing on it.
_OUTLIER_QUANTILE, _OUTLIER_FACTOR, _OUTLIER_LIMIT = 0.97, 10.0, 1e6
_ON_THE_MEAN = 1e-5


def metric_scale(first: Floats, positions: Floats, units_per_metre: float) -> float:
    """The `camera_scale` with which a metre stays `units_per_metre` units in one forward pass.

    Stable Virtual Camera shifts all cameras by the mean of the scene's positions and then scales them, so that the
    pass's first camera is `camera_scale` away from it: factor = camera_scale / |t_first - mean|. Where that camera
    stands on the mean, the factor is `camera_scale` itself. Asking for units_per_metre * |t_first - mean| gives the
    factor units_per_metre. A path of more than one pass begins each at another camera, so each has its own.

    Args:
        first: position of the pass's first camera, (3,), metres.
        positions: of all cameras of the scene, (N, 3), metres.
        units_per_metre: what a metre shall be.

    Returns:
        The scale.
    """
    points = np.asarray(positions, dtype=np.float32)
    # The lower one of two middle values, as in torch.
    middle = np.sort(points, axis=0)[(len(points) - 1) // 2]
    distances = np.linalg.norm(points - middle, axis=1)
    reach = min(_OUTLIER_FACTOR * float(np.quantile(distances, _OUTLIER_QUANTILE)), _OUTLIER_LIMIT)
    mean = points[distances <= reach].mean(axis=0)
    distance = float(np.linalg.norm(np.asarray(first, dtype=np.float32) - mean))
    return units_per_metre * (1.0 if distance <= _ON_THE_MEAN else distance)


def make_version(side: int, steps: int, cfg: float) -> dict[str, Any]:
    """A fresh `version_dict` with World2VLM's options; the package changes what it is given.

    Args:
        side: of the square frames in pixels.
        steps: of the sampler.
        cfg: guidance scale.
    """
    return {
        "H": side,
        "W": side,
        "T": 21,
        "C": 4,
        "f": 8,
        "options": {
            "chunk_strategy": "interp",
            "video_save_fps": 30.0,
            "beta_linear_start": 5e-6,
            "log_snr_shift": 2.4,
            "guider_types": [1, 2],
            "cfg": cfg,
            "num_steps": steps,
            "cfg_min": 1.2,
            "encoding_t": 1,
            "decoding_t": 1,
        },
    }


def count_still(poses: Floats) -> int:
    """How many poses there are before the camera moves for the first time: they all show the photo."""
    moved = np.abs(poses - np.eye(4)).max(axis=(1, 2)) > 1e-9
    return int(np.argmax(moved)) if moved.any() else len(poses)


def prior_orders(targets: int, count: int) -> list[float]:
    """Where the first pass's anchor views lie among the targets 1 to `targets`: evenly spread, both ends included."""
    orders: NDArray[np.float64] = np.linspace(1, targets, count)
    return [float(order) for order in orders]
