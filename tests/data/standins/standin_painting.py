"""What both stand-ins share: a painting on a plane, seen from elsewhere; slow steps; and failures on demand."""

import os
import sys
import time

import numpy as np

PLANE_UNITS = 2.0
CONTROLS = os.environ.get("STANDIN_CONTROLS", "")


def view(painting, k, c2w):
    """Show a painting as another camera sees it.

    Args:
        painting: uint8 (H, W, 3), what the first camera sees: a plane at z = 2 units.
        k: K in pixels.
        c2w: (4, 4), the other camera in the first one's frame, units.

    Returns:
        uint8 (H, W, 3); black where the painting ends.
    """
    height, width = painting.shape[:2]
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(k).T @ c2w[:3, :3].T
    depth = (PLANE_UNITS - c2w[2, 3]) / np.where(rays[..., 2] > 1e-6, rays[..., 2], np.nan)
    points = c2w[:3, 3] + rays * depth[..., None]
    seen = points @ k.T
    x, y = seen[..., 0] / seen[..., 2] - 0.5, seen[..., 1] / seen[..., 2] - 0.5
    inside = (depth > 0) & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    column = np.rint(np.where(inside, x, 0)).astype(int)
    row = np.rint(np.where(inside, y, 0)).astype(int)
    return np.where(inside[..., None], painting[row, column], 0).astype(np.uint8)


def step(number):
    """One step of a sampler: noted, and as slow as the test wants it."""
    if CONTROLS:
        with open(os.path.join(CONTROLS, "steps"), "a") as notes:
            notes.write(f"{number}\n")
    told = _told("step")
    if told == "fail":
        print("secret of the inside", file=sys.stderr, flush=True)
        raise RuntimeError("secret of the inside")
    time.sleep(float(told or 0))


def loading():
    """Called where the real package would load its weights."""
    told = _told("load")
    if told == "fail":
        raise RuntimeError("secret of the inside")
    if told == "hang":
        time.sleep(600)


def _told(about):
    path = os.path.join(CONTROLS, about)
    if not CONTROLS or not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()
