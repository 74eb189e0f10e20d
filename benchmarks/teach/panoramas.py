"""Perspective crops of equirectangular photographs: exact turns of a real camera."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from world2vlm.cameras import Floats, pixel_rays, yaw_matrix

FOLDER = Path(__file__).parents[2] / "tests/data/panoramas"
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Panorama:
    """A photograph of everything around, its columns 360 degrees, its middle row the horizon.

    Attributes:
        pixels: uint8 (height, width, 3).
        orientation: float64 (3, 3), the first camera's.
    """

    pixels: NDArray[np.uint8]
    orientation: Floats

    def view(self, rotation: Floats, intrinsics: Floats, size: tuple[int, int]) -> NDArray[np.uint8]:
        """What a camera sees, turned by `rotation` (3, 3) from the first: uint8 (height, width, 3)."""
        width, height = size
        fine = np.diag([_SUPERSAMPLING, _SUPERSAMPLING, 1.0]) @ intrinsics
        rays = pixel_rays(fine, width * _SUPERSAMPLING, height * _SUPERSAMPLING) @ (self.orientation @ rotation).T
        per_radian = self.pixels.shape[1] / (2 * np.pi)
        columns = (np.arctan2(rays[..., 0], rays[..., 2]) + np.pi) * per_radian - 0.5
        elevation = np.arcsin(rays[..., 1] / np.linalg.norm(rays, axis=-1))
        rows = elevation * per_radian + self.pixels.shape[0] / 2 - 0.5
        # One column from the other end on either side, so that nothing shows where the ends meet.
        around = np.concatenate([self.pixels[:, -1:], self.pixels, self.pixels[:, :1]], axis=1)
        across, down = (np.asarray(each, dtype=np.float32) for each in (columns + 1, rows))
        sampled = cv2.remap(around, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(cv2.resize(sampled, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def load_panorama(path: Path, yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> Panorama:
    """Read a panorama; its first camera looks `yaw_deg` to the right and `pitch_deg` up."""
    c, s = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    up = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return Panorama(np.asarray(Image.open(path).convert("RGB")), yaw_matrix(yaw_deg) @ up)
