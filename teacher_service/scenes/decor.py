"""Parametric lamps, plants and small things: each function returns the parts of one piece."""

from __future__ import annotations

import numpy as np

from teacher_service.scenes.meshes import Part


def lamp(rng: np.random.Generator) -> list[Part]:
    """A standing lamp: foot, thin pole and a large conical shade."""
    h, r, tall = rng.uniform(1.35, 1.8), rng.uniform(0.24, 0.32), rng.uniform(0.32, 0.45)
    return [
        Part("cylinder", (0, 0.025, 0), (0.34, 0.05, 0.34), "dark"),
        Part("cylinder", (0, h / 2, 0), (0.05, h - 0.1, 0.05), "dark"),
        Part("cylinder", (0, h - tall / 2, 0), (2 * r, tall, 2 * r), taper=rng.uniform(0.35, 0.6)),
        Part("cylinder", (0, h - tall - 0.01, 0), (2 * r * 0.9, 0.02, 2 * r * 0.9), "pale"),
    ]


def plant(rng: np.random.Generator) -> list[Part]:
    """A clay pot and stems that carry coloured leaves."""
    pot, r, h = rng.uniform(0.28, 0.42), rng.uniform(0.15, 0.21), rng.uniform(0.95, 1.5)
    parts = [
        Part("cylinder", (0, pot / 2, 0), (1.4 * r, pot, 1.4 * r), "clay", taper=1.45),
        Part("cylinder", (0, pot - 0.02, 0), (2.2 * r, 0.06, 2.2 * r), "clay"),
        Part("cylinder", (0, (pot + h * 0.8) / 2, 0), (0.05, h * 0.8 - pot, 0.05), "stem"),
    ]
    count = int(rng.integers(12, 18))
    for i in range(count):
        up = i / (count - 1)
        angle = 2.4 * i + rng.uniform(-0.3, 0.3)
        reach = (0.34 - 0.2 * up) * rng.uniform(0.8, 1.1)
        x, z = float(np.cos(angle)) * reach, float(np.sin(angle)) * reach
        y = pot + 0.12 + (h - pot - 0.16) * up
        # A leaf is long along x before it is turned to its angle and lifted.
        turn = (0.0, -float(np.degrees(angle)), 0.0)
        size = (0.36 - 0.1 * up, 0.12, 0.17)
        parts.append(Part("leaf", (x * 0.8, y, z * 0.8), size, str(rng.choice(["main", "main", "shade"])), turn=turn))
    return parts


def vase(rng: np.random.Generator) -> list[Part]:
    """A bellied vase with a narrow neck and a flared lip."""
    h, r = rng.uniform(0.42, 0.62), rng.uniform(0.13, 0.18)
    return [
        Part("cylinder", (0, h * 0.06, 0), (1.2 * r, h * 0.12, 1.2 * r), "shade"),
        Part("sphere", (0, h * 0.38, 0), (2 * r, h * 0.66, 2 * r)),
        Part("cylinder", (0, h * 0.38, 0), (2.03 * r, h * 0.08, 2.03 * r), "light"),
        Part("cylinder", (0, h * 0.76, 0), (0.9 * r, h * 0.24, 0.9 * r)),
        Part("cylinder", (0, h * 0.93, 0), (0.9 * r, h * 0.14, 0.9 * r), taper=1.6),
        Part("cylinder", (0, h * 0.997, 0), (1.1 * r, 0.005, 1.1 * r), "dark"),
    ]


def ball(rng: np.random.Generator) -> list[Part]:
    """A large striped ball."""
    size = rng.uniform(0.42, 0.75)
    return [
        Part("sphere", (0, size / 2, 0), (size, size, size)),
        Part("cylinder", (0, size / 2, 0), (size * 1.03, size * 0.14, size * 1.03), "light", turn=(25, 0, 20)),
    ]


def box(rng: np.random.Generator) -> list[Part]:
    """An open carton with flaps and a band of tape."""
    w, d, h = rng.uniform(0.4, 0.62), rng.uniform(0.36, 0.55), rng.uniform(0.32, 0.55)
    lift = rng.uniform(20, 50)
    out = float(np.cos(np.radians(lift))) * 0.07
    up = h + float(np.sin(np.radians(lift))) * 0.07
    return [
        Part("box", (0, h / 2, 0), (w, h, d)),
        Part("box", (0, h / 2, 0), (0.08, h + 0.004, d + 0.004), "light"),
        Part("box", (0, h, 0), (w - 0.04, 0.006, d - 0.04), "dark"),
        Part("box", (-w / 2 - out, up, 0), (0.15, 0.015, d), turn=(0, 0, lift)),
        Part("box", (w / 2 + out, up, 0), (0.15, 0.015, d), turn=(0, 0, -lift)),
        Part("box", (0, up, -d / 2 - out), (w, 0.015, 0.15), "shade", turn=(-lift, 0, 0)),
        Part("box", (0, up, d / 2 + out), (w, 0.015, 0.15), "shade", turn=(lift, 0, 0)),
    ]


def clock(rng: np.random.Generator) -> list[Part]:
    """A round clock on the wall, or the same face in a tall case on the floor."""
    r = rng.uniform(0.3, 0.42)
    tall_case = rng.random() < 0.5
    y = 1.62
    parts = [Part("cylinder", (0, y, 0), (2 * r, 0.08, 2 * r), turn=(90, 0, 0))]
    front = -0.04
    if tall_case:
        r = 0.26
        y, front = 1.66, -0.17
        parts = [
            Part("box", (0, 0.2, 0), (0.56, 0.4, 0.34)),
            Part("box", (0, 0.85, 0), (0.4, 0.95, 0.28)),
            Part("box", (0, 1.64, 0), (0.6, 0.64, 0.34)),
            Part("box", (0, 1.98, 0), (0.66, 0.06, 0.36), "shade"),
            Part("box", (0, 0.86, -0.14), (0.24, 0.7, 0.02), "dark"),
            Part("cylinder", (0, 0.68, -0.155), (0.14, 0.02, 0.14), "metal", turn=(90, 0, 0)),
            Part("box", (0, 0.92, -0.155), (0.02, 0.44, 0.01), "metal"),
        ]
    parts.append(Part("cylinder", (0, y, front), (1.36 * r, 0.02, 1.36 * r), "pale", turn=(90, 0, 0)))
    minute, hour = rng.uniform(0, 360), rng.uniform(0, 360)
    for angle, length in ((minute, 0.62 * r), (hour, 0.42 * r)):
        x, up = float(np.sin(np.radians(angle))) * length / 2, float(np.cos(np.radians(angle))) * length / 2
        parts.append(Part("box", (x, y + up, front - 0.015), (0.045, length, 0.012), "dark", turn=(0, 0, angle)))
    return parts
