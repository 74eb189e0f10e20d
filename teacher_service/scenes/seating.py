"""Parametric seats and beds, and the bathroom pieces: each function returns the parts of one piece of furniture."""

from __future__ import annotations

import numpy as np

from teacher_service.scenes.meshes import Part, Pattern


def legs(width: float, depth: float, height: float, thick: float, tint: str) -> list[Part]:
    """Return four square legs standing inside a `width` x `depth` footprint."""
    x, z = (width - thick) / 2, (depth - thick) / 2
    return [Part("box", (i * x, height / 2, j * z), (thick, height, thick), tint) for i in (-1, 1) for j in (-1, 1)]


def chair(rng: np.random.Generator) -> list[Part]:
    """Four legs, a seat and an upright back, solid or slatted."""
    w, d, seat, top = rng.uniform(0.44, 0.54), rng.uniform(0.44, 0.54), rng.uniform(0.44, 0.5), rng.uniform(0.92, 1.15)
    thick = rng.uniform(0.045, 0.06)
    parts = legs(w, d, seat, thick, str(rng.choice(["shade", "wood"])))
    parts.append(Part("box", (0, seat, 0), (w, 0.07, d)))
    back = (d - 0.05) / 2
    if rng.random() < 0.5:
        middle = (seat + 0.12 + top) / 2
        parts.append(Part("box", (0, middle, back), (w, top - seat - 0.12, 0.045)))
        parts += [Part("box", (i * (w - 0.05) / 2, seat + 0.1, back), (0.05, 0.2, 0.045), "shade") for i in (-1, 1)]
        return parts
    for x in np.linspace(-(w - 0.05) / 2, (w - 0.05) / 2, int(rng.integers(4, 6))):
        parts.append(Part("box", (float(x), (seat + top) / 2, back), (0.045, top - seat, 0.045)))
    parts.append(Part("box", (0, top - 0.06, back), (w, 0.13, 0.05)))
    return parts


def _upholstered(rng: np.random.Generator, w: float, cushions: int) -> list[Part]:
    d, seat, arm, top = rng.uniform(0.8, 0.95), 0.4, rng.uniform(0.56, 0.66), rng.uniform(0.82, 1.0)
    side, back = rng.uniform(0.14, 0.2), 0.2
    parts = [
        Part("box", (0, 0.2, 0), (w - 0.03, 0.24, d - 0.03), "shade"),
        Part("box", (0, (top + 0.1) / 2, (d - back) / 2), (w, top - 0.1, back)),
    ]
    for i in (-1, 1):
        x = i * (w - side) / 2
        parts.append(Part("box", (x, (arm + 0.1) / 2, -0.02), (side + 0.02, arm - 0.1, d - 0.06)))
        parts.append(Part("box", (i * (w / 2 - 0.08), 0.05, -d / 2 + 0.08), (0.07, 0.1, 0.07), "dark"))
        parts.append(Part("box", (i * (w / 2 - 0.08), 0.05, d / 2 - 0.08), (0.07, 0.1, 0.07), "dark"))
    each = (w - 2 * side) / cushions
    for i in range(cushions):
        x = (i - (cushions - 1) / 2) * each
        parts.append(Part("box", (x, seat, -back / 2), (each * 0.95, 0.15, d - back - 0.02), "light"))
        parts.append(Part("box", (x, seat + 0.25, d / 2 - back - 0.05), (each * 0.9, 0.34, 0.14), turn=(-8, 0, 0)))
    return parts


def sofa(rng: np.random.Generator) -> list[Part]:
    """A wide upholstered seat with two or three cushions and arms."""
    cushions = int(rng.integers(2, 4))
    return _upholstered(rng, 0.45 + 0.55 * cushions + float(rng.uniform(0.0, 0.2)), cushions)


def armchair(rng: np.random.Generator) -> list[Part]:
    """The one-seat version of a sofa."""
    return _upholstered(rng, rng.uniform(0.85, 1.0), 1)


def bench(rng: np.random.Generator) -> list[Part]:
    """A long, low, backless seat of planks."""
    w, d, h = rng.uniform(1.15, 1.6), rng.uniform(0.36, 0.46), rng.uniform(0.42, 0.5)
    parts = [Part("box", (0, h - 0.03, z), (w, 0.06, d / 3 - 0.02)) for z in (-d / 3, 0.0, d / 3)]
    for i in (-1, 1):
        parts.append(Part("box", (i * (w / 2 - 0.15), h / 2 - 0.03, 0), (0.07, h - 0.06, d * 0.9), "shade"))
    parts.append(Part("box", (0, h * 0.4, 0), (w - 0.3, 0.07, 0.05), "shade"))
    return parts


def stool(rng: np.random.Generator) -> list[Part]:
    """A round seat on splayed legs with a foot ring."""
    r, h = rng.uniform(0.18, 0.23), rng.uniform(0.5, 0.75)
    parts = [Part("cylinder", (0, h - 0.04, 0), (2 * r, 0.08, 2 * r))]
    count = int(rng.integers(3, 5))
    for angle in np.arange(count) * 2 * np.pi / count:
        x, z = float(np.cos(angle)) * r * 0.85, float(np.sin(angle)) * r * 0.85
        tilt = (float(np.sin(angle)) * -8, 0.0, float(np.cos(angle)) * 8)
        parts.append(Part("cylinder", (x, (h - 0.06) / 2, z), (0.045, h - 0.06, 0.045), "shade", turn=tilt))
    for turn in (0.0, 90.0):
        parts.append(Part("box", (0, h * 0.3, 0), (r * 1.7, 0.035, 0.035), "shade", turn=(0, turn, 0)))
    return parts


def bed(rng: np.random.Generator) -> list[Part]:
    """A frame with a headboard, pillows and a blanket."""
    w, d, top = rng.uniform(1.0, 1.6), rng.uniform(1.9, 2.1), rng.uniform(0.85, 1.2)
    parts = legs(w, d, 0.2, 0.1, "dark")
    parts += [
        Part("box", (0, 0.24, 0), (w, 0.18, d), "shade"),
        Part("box", (0, top / 2 + 0.05, d / 2 - 0.04), (w, top - 0.1, 0.08)),
        Part("box", (0, 0.34, -d / 2 + 0.03), (w, 0.4, 0.06)),
        Part("box", (0, 0.42, 0), (w - 0.06, 0.2, d - 0.14), "pale"),
        Part("box", (0, 0.44, -0.24), (w - 0.02, 0.22, d - 0.62), pattern=Pattern.STRIPES, cell=rng.uniform(0.2, 0.4)),
    ]
    pillows = 2 if w > 1.25 else 1
    for i in range(pillows):
        x = (i - (pillows - 1) / 2) * w / 2
        parts.append(Part("sphere", (x, 0.56, d / 2 - 0.33), (w * 0.75 / pillows, 0.18, 0.42), "pale"))
    return parts


def bathtub(rng: np.random.Generator) -> list[Part]:
    """A tub with thick walls, water inside and a tap."""
    w, d, h, rim = rng.uniform(1.5, 1.7), rng.uniform(0.72, 0.85), rng.uniform(0.52, 0.62), 0.09
    parts = [Part("box", (0, h / 2, z), (w, h, rim), "main") for z in (-(d - rim) / 2, (d - rim) / 2)]
    parts += [Part("box", (x, h / 2, 0), (rim, h, d - 2 * rim), "main") for x in (-(w - rim) / 2, (w - rim) / 2)]
    parts += [
        Part("box", (0, h * 0.35, 0), (w - 2 * rim, h * 0.7, d - 2 * rim), "pale"),
        Part("box", (0, h - 0.02, -(d - rim) / 2), (w, 0.045, rim * 1.4), "light"),
        Part("box", (0, h - 0.02, (d - rim) / 2), (w, 0.045, rim * 1.4), "light"),
        Part("cylinder", (-w * 0.36, h + 0.12, d / 2 - 0.05), (0.06, 0.24, 0.06), "metal"),
        Part("box", (-w * 0.36, h + 0.22, d / 2 - 0.16), (0.05, 0.05, 0.26), "metal"),
    ]
    return parts


def toilet(rng: np.random.Generator) -> list[Part]:
    """A bowl on a foot, a seat ring and a cistern behind."""
    w, h = rng.uniform(0.4, 0.46), rng.uniform(0.42, 0.46)
    top = rng.uniform(0.85, 0.98)
    return [
        Part("cylinder", (0, h / 2, -0.06), (w * 0.62, h, 0.46), taper=1.45),
        Part("cylinder", (0, h + 0.02, -0.1), (w, 0.06, 0.58), "light"),
        Part("cylinder", (0, h + 0.045, -0.12), (w * 0.62, 0.03, 0.38), "dark"),
        Part("box", (0, h / 2, 0.2), (w * 0.7, h, 0.26), "shade"),
        Part("box", (0, (h + top) / 2, 0.26), (w * 1.05, top - h, 0.2)),
        Part("box", (0, top + 0.02, 0.26), (w * 1.12, 0.05, 0.23), "light"),
        Part("cylinder", (0, top + 0.055, 0.26), (0.06, 0.03, 0.06), "metal"),
    ]
