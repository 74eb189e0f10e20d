"""The weights of a small network on disk, and the card that says how they came about."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from teacher_service.training.depth import DepthRecipe
from teacher_service.training.inpaint import InpaintRecipe
from world2vlm import __version__
from world2vlm.files import sha256_file, write_atomically

CARD = "card.json"


def write_weights(
    folder: Path,
    name: str,
    network: nn.Module,
    config: Mapping[str, Any],
    recipe: DepthRecipe | InpaintRecipe,
    figures: Mapping[str, float],
) -> dict[str, Any]:
    """Write weights in float16, `config.json` and `card.json`.

    Args:
        folder: where to.
        name: the weights' file.
        network: as trained.
        config: what the network is built from again.
        recipe: what it was trained by.
        figures: what it reaches on held-out rooms.

    Returns:
        The card: `weights` (sha256, bytes, parameters), `recipe`, `held_out`, `versions`.
    """
    weights = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    write_atomically(folder / name, save(weights))
    write_atomically(folder / "config.json", _json(config))
    card = {
        "weights": {
            "sha256": sha256_file(folder / name),
            "bytes": (folder / name).stat().st_size,
            "parameters": sum(value.numel() for value in weights.values()),
        },
        "recipe": asdict(recipe),
        "held_out": dict(figures),
        "versions": {"world2vlm": __version__, "python": platform.python_version(), "torch": torch.__version__},
    }
    write_atomically(folder / CARD, _json(card))
    return card


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"
