"""A checkpoint's safetensors, for engines that need no transformers model: names, shapes, and values as float32."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from world2vlm.errors import InvalidInputError
from world2vlm.vlm.finite import all_finite


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes by name, without reading the values.

    Raises:
        InvalidInputError: no safetensors, or broken ones.
    """
    shapes = {}
    for path in _paths(folder):
        try:
            with safe_open(path, "pt") as file:
                shapes.update({name: list(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InvalidInputError(f"{path.name} cannot be read ({type(error).__name__})") from error
    return shapes


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Values by name, float32 and contiguous.

    Raises:
        InvalidInputError: no safetensors, or broken ones, or a value is not finite.
    """
    weights = {}
    for path in _paths(folder):
        try:
            with safe_open(path, "pt") as file:
                weights.update({name: file.get_tensor(name).float().contiguous() for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InvalidInputError(f"{path.name} cannot be read ({type(error).__name__})") from error
    if not all_finite(weights.values()):
        raise InvalidInputError("the checkpoint has weights that are not finite")
    return weights


def _paths(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InvalidInputError("the checkpoint has no safetensors")
    return paths
