"""Metric depth models of `transformers`: Depth Anything V2 (metric), DepthPro, ZoeDepth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForDepthEstimation

from teacher_service.hub import choose_device, digest, fetch, load_model
from world2vlm.cameras import Floats
from world2vlm.errors import InvalidInputError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Kind: the size that the model was trained at (height, width), mean and deviation of colours; where no file says else.
_KINDS: dict[str, tuple[tuple[int, int], tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "depth_anything": ((518, 518), _IMAGENET),
    "depth_pro": ((1536, 1536), _HALVES),
    "zoedepth": ((384, 512), _HALVES),
}
_ZOE_MULTIPLE = 32
_LEAST_INVERSE_M, _MOST_INVERSE_M = 1e-3, 1e2


class PretrainedDepth:
    """A depth model by folder or hub name.

    Pictures are prepared here and not by transformers' processors, which need torchvision for DepthPro and ZoeDepth:
    scaled to the size that the model's `preprocessor_config.json` names, and normalised. ZoeDepth's padding, which
    spares it artefacts along the borders, is left out.

    Args:
        name: a folder or a hub repository with safetensors weights.
        device: torch device, or `auto`.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: not a metric model of a known kind, no safetensors weights, or some of them are missing.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        folder = fetch(name)
        self.digest = digest(folder)
        self._device = choose_device(device)
        config = _read_config(name, folder)
        self._kind = str(config.model_type)
        self._size, *colours = _preparation(folder, self._kind)
        self._mean, self._deviation = (each.to(self._device) for each in colours)
        self._multiple = config.patch_size if self._kind == "depth_anything" else _ZOE_MULTIPLE
        try:
            self._model = load_model(AutoModelForDepthEstimation, folder, name, self._device, config=config)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"the depth model {name!r} can't be loaded: {error}") from error

    @torch.inference_mode()
    def estimate(self, pixels: NDArray[np.uint8], intrinsics: Floats) -> NDArray[np.float32]:
        """Estimate metric depth; see `DepthEstimator.estimate`."""
        height, width = pixels.shape[:2]
        picture = torch.from_numpy(pixels.copy()).to(self._device).permute(2, 0, 1)[None] / 255
        picture = F.interpolate(picture, self._fit(height, width), mode="bicubic", antialias=True).clamp(0, 1)
        picture = (picture - self._mean) / self._deviation
        guess = self._model(pixel_values=picture).predicted_depth.float()
        full = F.interpolate(guess[:, None], (height, width), mode="bilinear")[0, 0]
        if self._kind == "depth_pro":
            # It gives 1 / depth for a lens whose focal length is the picture's width (Depth Pro, section 3.1); the
            # photo's own lens is known here, and its guess of the lens is not needed.
            inverse = full * width / float(intrinsics[0, 0])
            full = 1 / inverse.clamp(_LEAST_INVERSE_M, _MOST_INVERSE_M)
        return np.asarray(full.clamp(1 / _MOST_INVERSE_M, 1 / _LEAST_INVERSE_M).cpu().numpy(), dtype=np.float32)

    def _fit(self, height: int, width: int) -> tuple[int, int]:
        """The size to look at: DepthPro's own square, for others the photo's shape scaled as little as may be."""
        if self._kind == "depth_pro":
            return self._size
        factor = min((self._size[0] / height, self._size[1] / width), key=lambda each: abs(1 - each))
        rows, columns = (max(1, round(side * factor / self._multiple)) * self._multiple for side in (height, width))
        return rows, columns


def _read_config(name: str, folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"the depth model {name!r} has no configuration of transformers: {error}") from error
    if config.model_type not in _KINDS:
        raise InvalidInputError(
            f"the depth model {name!r} is a {config.model_type}; known are {', '.join(sorted(_KINDS))}"
        )
    if getattr(config, "depth_estimation_type", "metric") != "metric":
        raise InvalidInputError(
            f"the depth model {name!r} estimates relative depth, without metres; name one of the metric ones, such as "
            "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
        )
    return config


def _preparation(folder: Path, kind: str) -> tuple[tuple[int, int], Tensor, Tensor]:
    """Return (height, width), and mean and deviation (1, 3, 1, 1), from the model's own file where it has one."""
    size, (mean, deviation) = _KINDS[kind]
    path = folder / "preprocessor_config.json"
    stated = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {"height", "width"} <= set(stated.get("size", {})):
        size = (int(stated["size"]["height"]), int(stated["size"]["width"]))
    mean, deviation = stated.get("image_mean", mean), stated.get("image_std", deviation)
    return size, torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(deviation).view(1, 3, 1, 1)
