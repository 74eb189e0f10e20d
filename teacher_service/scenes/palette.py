"""Named object colours, neutral accents and the muted colours of a room's shell."""

from __future__ import annotations

import colorsys
from typing import Final

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.float32]

_NAMED: Final[dict[str, tuple[float, float, float]]] = {
    "red": (0.82, 0.08, 0.10),
    "green": (0.10, 0.60, 0.15),
    "blue": (0.10, 0.20, 0.85),
    "yellow": (0.96, 0.84, 0.10),
    "purple": (0.50, 0.12, 0.66),
    "orange": (0.98, 0.46, 0.04),
    "white": (0.96, 0.96, 0.95),
    "cyan": (0.08, 0.78, 0.84),
}
COLOURS: Final[tuple[str, ...]] = tuple(_NAMED)
"""The dominant colours an object may have. Cyan rather than black: black hides an object's shape at 64 pixels."""

_NEUTRAL: Final[dict[str, tuple[float, float, float]]] = {
    "wood": (0.36, 0.29, 0.23),
    "dark": (0.10, 0.10, 0.11),
    "metal": (0.56, 0.57, 0.58),
    "pale": (0.90, 0.89, 0.86),
    "screen": (0.07, 0.08, 0.11),
    "clay": (0.45, 0.36, 0.32),
    "stem": (0.20, 0.28, 0.16),
}


def tints(colour: str, rng: np.random.Generator) -> dict[str, Rgb]:
    """Return the tints of one object, by name: RGB float32 in [0, 1].

    `main`, `shade` and `light` belong to the named colour (jittered a little per object); the others are neutral.
    """
    base = np.clip(np.array(_NAMED[colour]) * rng.uniform(0.9, 1.04) + rng.uniform(-0.03, 0.03, 3), 0.02, 1.0)
    found = {"main": base, "shade": base * 0.68, "light": base * 0.72 + 0.28}
    gain = rng.uniform(0.85, 1.15)
    found.update({name: np.clip(np.array(rgb) * gain, 0.0, 1.0) for name, rgb in _NEUTRAL.items()})
    return {name: rgb.astype(np.float32) for name, rgb in found.items()}


def muted(rng: np.random.Generator, value: tuple[float, float], saturation: float) -> Rgb:
    """Return a random low-saturation RGB colour, float32 in [0, 1], with its value in the range given."""
    hue = rng.uniform(0.0, 1.0)
    return np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.0, saturation), rng.uniform(*value)), dtype=np.float32)
