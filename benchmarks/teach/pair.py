"""The geometric world against a second photograph: scikit-image's `motorcycle`, left to right."""

import numpy as np
from scipy import ndimage
from skimage.data import stereo_motorcycle

from benchmarks.serve.findings import Claim, Part
from benchmarks.teach.quality import psnr
from teacher_service.paths import from_poses
from teacher_service.photos import motorcycle
from teacher_service.worlds.base import ImagineSpec
from teacher_service.worlds.geometric import GeometricWorld
from world2vlm.images import decode_image, decode_map

# Of the pair at full size: metres and pixels.
_BASELINE_M, _OFFSET_PX = 0.193001, 31.086


def compare_pair() -> Part:
    """Go from the left camera to the right one, and compare with what that took."""
    photo, pose = motorcycle(), np.eye(4)
    pose[0, 3] = _BASELINE_M
    *_, last = GeometricWorld().imagine(ImagineSpec(photo, from_poses([pose])))
    pixels, seen = np.asarray(decode_image(last.png)), decode_map(last.observed_png) > 0
    right = stereo_motorcycle()[1].astype(float)  # type: ignore[no-untyped-call]
    # The right camera's principal point lies further right; its picture ends where it is shifted in.
    shifted = ndimage.shift(right, (0, -_OFFSET_PX, 0), order=1, mode="nearest")
    truth = shifted[:, :740].reshape(250, 2, 370, 2, 3).mean((1, 3))
    inside = np.arange(seen.shape[1]) < seen.shape[1] - np.ceil(_OFFSET_PX / 2)
    covered = seen & inside
    whole = inside & np.ones_like(seen)
    figures = {
        "covered": float(seen.mean()),
        "dB on covered pixels": psnr(pixels, truth, covered),
        "dB on all pixels": psnr(pixels, truth, whole),
        "dB of the left picture itself": psnr(photo.pixels, truth, covered),
    }
    return Part(figures, (Claim("dB on covered pixels", figures["dB on covered pixels"], 26.5, is_least=True),))
