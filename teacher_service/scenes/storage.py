"""Parametric tables, storage and appliances: each function returns the parts of one piece of furniture."""

from __future__ import annotations

import numpy as np

from teacher_service.scenes.meshes import Part, Pattern
from teacher_service.scenes.seating import legs


def table(rng: np.random.Generator) -> list[Part]:
    """A rectangular top on four legs, or a round one on a pedestal."""
    h = rng.uniform(0.7, 0.8)
    if rng.random() < 0.4:
        r = rng.uniform(0.45, 0.6)
        return [
            Part("cylinder", (0, h - 0.03, 0), (2 * r, 0.06, 2 * r)),
            Part("cylinder", (0, h / 2, 0), (0.12, h - 0.06, 0.12), "shade"),
            Part("cylinder", (0, 0.03, 0), (r * 1.1, 0.06, r * 1.1), "shade", taper=0.6),
        ]
    w, d = rng.uniform(1.0, 1.5), rng.uniform(0.7, 0.9)
    parts = legs(w - 0.06, d - 0.06, h - 0.05, rng.uniform(0.06, 0.09), str(rng.choice(["shade", "main"])))
    parts.append(Part("box", (0, h - 0.11, 0), (w - 0.14, 0.1, d - 0.14), "shade"))
    parts.append(Part("box", (0, h - 0.03, 0), (w, 0.06, d), pattern=Pattern.STRIPES, cell=rng.uniform(0.2, 0.35)))
    return parts


def desk(rng: np.random.Generator) -> list[Part]:
    """A top with a pedestal of drawers on one side and a panel on the other."""
    w, d, h = rng.uniform(1.15, 1.5), rng.uniform(0.6, 0.7), rng.uniform(0.72, 0.78)
    side = float(rng.choice([-1.0, 1.0]))
    drawers = 0.42
    x = side * (w - drawers) / 2
    parts = [
        Part("box", (0, h - 0.025, 0), (w, 0.05, d), "light"),
        Part("box", (x, h / 2, 0.01), (drawers, h - 0.05, d - 0.04)),
        Part("box", (-side * (w / 2 - 0.03), h / 2, 0), (0.05, h - 0.05, d - 0.04)),
        Part("box", (0, h * 0.62, d / 2 - 0.05), (w - 0.1, h * 0.5, 0.03), "shade"),
    ]
    for i in range(3):
        y = 0.05 + (i + 0.5) * (h - 0.1) / 3
        parts.append(Part("box", (x, y, -d / 2 + 0.02), (drawers - 0.05, (h - 0.1) / 3 - 0.035, 0.03), "shade"))
        parts.append(Part("box", (x, y, -d / 2 + 0.005), (0.14, 0.03, 0.03), "pale"))
    return parts


def bookshelf(rng: np.random.Generator) -> list[Part]:
    """An open case of shelves filled with books."""
    w, d, h, t = rng.uniform(0.8, 1.15), rng.uniform(0.28, 0.36), rng.uniform(1.6, 2.05), 0.05
    shelves = int(rng.integers(4, 6))
    parts = [Part("box", (i * (w - t) / 2, h / 2, 0), (t, h, d)) for i in (-1, 1)]
    parts.append(Part("box", (0, h / 2, d / 2 - 0.01), (w, h, 0.02), "shade"))
    step = (h - t) / shelves
    parts += [Part("box", (0, t / 2 + i * step, 0), (w, t, d)) for i in range(shelves + 1)]
    for shelf in range(shelves):
        left, right = -w / 2 + t, w / 2 - t
        right -= rng.uniform(0.0, 0.35) * (right - left)
        while left < right - 0.09:
            thick = rng.uniform(0.05, 0.11)
            tall = step * rng.uniform(0.55, 0.82)
            tint = str(rng.choice(["pale", "dark", "clay", "metal", "wood"]))
            y = t + shelf * step + tall / 2
            parts.append(Part("box", (left + thick / 2, y, 0.02), (thick - 0.008, tall, d * 0.75), tint))
            left += thick
    return parts


def wardrobe(rng: np.random.Generator) -> list[Part]:
    """A tall case with two panelled doors, a cornice and a plinth."""
    w, d, h = rng.uniform(1.0, 1.5), rng.uniform(0.52, 0.62), rng.uniform(1.85, 2.15)
    parts = [
        Part("box", (0, 0.05, 0.02), (w - 0.06, 0.1, d - 0.08), "dark"),
        Part("box", (0, h / 2 + 0.03, 0.01), (w - 0.04, h - 0.14, d - 0.04)),
        Part("box", (0, h - 0.035, 0), (w, 0.07, d), "shade"),
        Part("box", (0, h / 2 + 0.03, -d / 2 + 0.025), (0.025, h - 0.2, 0.02), "dark"),
    ]
    for i in (-1, 1):
        x = i * (w - 0.04) / 4
        for y, tall in ((h * 0.28, h * 0.36), (h * 0.72, h * 0.38)):
            parts.append(Part("box", (x, y, -d / 2 + 0.025), (w / 2 - 0.18, tall, 0.03), "light"))
        parts.append(Part("box", (i * 0.06, h * 0.5, -d / 2 + 0.01), (0.03, 0.24, 0.03), "metal"))
    return parts


def cabinet(rng: np.random.Generator) -> list[Part]:
    """A low case with rows of drawers on short feet."""
    w, d, h = rng.uniform(0.85, 1.35), rng.uniform(0.4, 0.5), rng.uniform(0.75, 0.95)
    rows, columns = int(rng.integers(2, 4)), 2
    parts = legs(w - 0.06, d - 0.06, 0.14, 0.06, "dark")
    parts.append(Part("box", (0, h / 2 + 0.05, 0.015), (w - 0.04, h - 0.14, d - 0.03), "shade"))
    parts.append(Part("box", (0, h - 0.02, 0), (w, 0.04, d)))
    tall, wide = (h - 0.18) / rows, (w - 0.04) / columns
    for row in range(rows):
        for column in range(columns):
            x, y = (column - 0.5) * wide, 0.14 + (row + 0.5) * tall
            parts.append(Part("box", (x, y, -d / 2 + 0.02), (wide - 0.05, tall - 0.045, 0.03)))
            parts.append(Part("box", (x, y, -d / 2 + 0.005), (0.12, 0.035, 0.03), "dark"))
    return parts


def fridge(rng: np.random.Generator) -> list[Part]:
    """A tall narrow box with a freezer door above and long handles."""
    w, d, h = rng.uniform(0.6, 0.75), rng.uniform(0.58, 0.68), rng.uniform(1.55, 1.85)
    split = h * rng.uniform(0.58, 0.68)
    side = float(rng.choice([-1.0, 1.0]))
    handle = side * (w / 2 - 0.08)
    return [
        Part("box", (0, 0.04, 0), (w - 0.04, 0.08, d - 0.06), "dark"),
        Part("box", (0, h / 2 + 0.03, 0.03), (w, h - 0.06, d - 0.06)),
        Part("box", (0, (split + 0.08) / 2, -d / 2 + 0.045), (w - 0.01, split - 0.1, 0.05), "light"),
        Part("box", (0, (split + h) / 2, -d / 2 + 0.045), (w - 0.01, h - split - 0.04, 0.05), "light"),
        Part("box", (0, split, -d / 2 + 0.05), (w, 0.035, 0.05), "dark"),
        Part("box", (handle, split * 0.72, -d / 2), (0.045, split * 0.42, 0.05), "dark"),
        Part("box", (handle, (split + h) / 2, -d / 2), (0.045, (h - split) * 0.6, 0.05), "dark"),
    ]


def television(rng: np.random.Generator) -> list[Part]:
    """A flat screen on a low stand, frame and stand in the same colour."""
    w, low = rng.uniform(1.0, 1.4), rng.uniform(0.42, 0.55)
    tall = w * 0.58
    y = low + 0.08 + tall / 2
    return [
        Part("box", (0, low / 2, 0), (w * 1.1, low, 0.42)),
        Part("box", (-w * 0.27, low / 2, -0.2), (w * 0.48, low - 0.12, 0.04), "shade"),
        Part("box", (w * 0.27, low / 2, -0.2), (w * 0.48, low - 0.12, 0.04), "shade"),
        Part("box", (0, low + 0.02, 0.05), (0.4, 0.04, 0.22), "dark"),
        Part("box", (0, low + 0.08, 0.06), (0.1, 0.16, 0.06), "dark"),
        Part("box", (0, y, 0.05), (w, tall, 0.07)),
        Part("box", (0, y, 0.01), (w - 0.14, tall - 0.14, 0.02), "screen"),
        Part("box", (-w * 0.18, y + tall * 0.1, 0.0), (w * 0.03, tall * 0.5, 0.01), "metal", turn=(0, 0, 30)),
    ]


def piano(rng: np.random.Generator) -> list[Part]:
    """An upright piano: case, protruding keyboard with black keys, two front legs."""
    w, h = rng.uniform(1.35, 1.5), rng.uniform(1.08, 1.28)
    keys = w - 0.16
    parts = [
        Part("box", (0, h / 2, 0.14), (w, h, 0.32)),
        Part("box", (0, h - 0.02, 0.13), (w + 0.05, 0.05, 0.38), "shade"),
        Part("box", (0, 0.66, -0.14), (w, 0.12, 0.32)),
        Part("box", (0, 0.735, -0.15), (keys, 0.04, 0.24), "pale"),
        Part("box", (0, 0.86, -0.03), (w - 0.2, 0.26, 0.03), "light"),
        Part("box", (0, 0.12, -0.04), (0.3, 0.05, 0.1), "metal"),
    ]
    for i in (-1, 1):
        parts.append(Part("box", (i * (w - 0.08) / 2, 0.7, -0.16), (0.08, 0.18, 0.3), "shade"))
        parts.append(Part("box", (i * (w - 0.08) / 2, 0.3, -0.25), (0.08, 0.6, 0.08), "shade"))
    for i in range(15):
        if i % 7 not in (2, 6):
            x = -keys / 2 + (i + 0.9) * keys / 15.5
            parts.append(Part("box", (x, 0.76, -0.1), (keys / 34, 0.03, 0.14), "dark"))
    return parts
