"""How well the geometric world's warp and fill agree with geometry and with a real second camera."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.data import stereo_motorcycle

from teacher_service.photos import motorcycle
from teacher_service.worlds.fill import fill_holes
from teacher_service.worlds.warp import Relief
from world2vlm.actions import parse_actions
from world2vlm.cameras import Floats, integrate, intrinsics_from_fov

WIDTH, HEIGHT = 96, 64
K = intrinsics_from_fov(54, WIDTH, HEIGHT)


def pose(text: str) -> Floats:
    return integrate(parse_actions(text))[-1]


def smooth_picture() -> NDArray[np.uint8]:
    noise = np.random.default_rng(1).uniform(0, 255, (HEIGHT, WIDTH, 3))
    blurred = ndimage.gaussian_filter(noise, (3, 3, 0))
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low) * 255).astype(np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    error = np.square(a[mask].astype(float) - b[mask]).mean()
    return float(10 * np.log10(255**2 / error))


def test_the_photo_s_own_camera_sees_the_photo() -> None:
    photo = motorcycle()
    warped = Relief(photo.pixels, photo.depth, photo.intrinsics).view(np.eye(4))
    assert warped.seen.all()
    assert np.abs(warped.rgb.astype(int) - photo.pixels).max() <= 2
    known = photo.depth > 0
    assert np.allclose(warped.depth[known], photo.depth[known], rtol=0.02)


def test_moving_right_gives_the_second_camera_s_picture() -> None:
    photo = motorcycle()
    warped = Relief(photo.pixels, photo.depth, photo.intrinsics).view(pose("move right 0.193 meters"))
    right = stereo_motorcycle()[1][:, :740].reshape(250, 2, 370, 2, 3).mean((1, 3))
    # The second camera's principal point lies dx = 31.086 px further right at full size.
    expected = ndimage.shift(right, (0, -31.086 / 2, 0), order=1, mode="nearest")
    inside = warped.seen & (np.arange(370) < 350)
    assert warped.seen.mean() > 0.8
    # Left and right differ by 14 dB without a warp.
    assert psnr(warped.rgb, expected, inside) > 22
    assert psnr(photo.pixels, expected, inside) < 18


def test_coming_nearer_magnifies_and_leaves_no_crack() -> None:
    pixels, depth = smooth_picture(), np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    warped = Relief(pixels, depth, K).view(pose("move forward 1 meters"))
    assert warped.seen.all()
    assert np.allclose(warped.depth, 1.0, atol=1e-3)
    # Half as far is twice as large: pixel i shows what was half as far from the centre.
    rows, columns = (np.arange(n) / 2 + n / 4 - 0.25 for n in (HEIGHT, WIDTH))
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = np.stack([ndimage.map_coordinates(pixels[..., c].astype(float), grid, order=1) for c in range(3)], -1)
    assert np.abs(warped.rgb - expected).max() < 3


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("turn left 10 degrees", "left"),
        ("turn right 10 degrees", "right"),
        ("move left 0.3 meters", "left"),
        ("move right 0.3 meters", "right"),
    ],
)
def test_what_was_outside_of_the_photo_is_a_hole_on_the_right_side(text: str, side: str) -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    holes = ~Relief(smooth_picture(), depth, K).view(pose(text)).seen
    columns = {"left": holes[:, :8].all(), "right": holes[:, -8:].all()}
    assert columns.pop(side)
    assert not any(columns.values())
    assert not holes[5:-5, 30:66].any()


def test_a_near_thing_hides_the_wall_and_the_hole_beside_it_shows_the_wall() -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), (0, 0, 200), dtype=np.uint8)
    depth = np.full((HEIGHT, WIDTH), 4.0, dtype=np.float32)
    pixels[20:44, 40:56], depth[20:44, 40:56] = (200, 0, 0), 1.0
    warped = Relief(pixels, depth, K).view(pose("move right 0.1 meters"))
    # Nearer things move more, to the left: by 0.1 m x f / 1 m, and f is 94.2 px.
    near = np.flatnonzero(warped.seen[32] & (warped.depth[32] < 2))
    assert (near.min(), near.max()) == (31, 46)
    assert (warped.rgb[32, 32:46] == (200, 0, 0)).all()
    hole = ~warped.seen[20:44, 30:70]
    assert 100 < hole.sum() < 200
    filled = fill_holes(warped.rgb, warped.depth, warped.seen)[20:44, 30:70][hole]
    assert filled[:, 2].mean() > 190
    assert filled[:, 0].mean() < 10


def test_a_slanted_floor_is_not_cut() -> None:
    rows = np.arange(HEIGHT) + 0.5 - HEIGHT / 2
    depth = np.repeat(np.where(rows > 2, 1.2 * K[1, 1] / np.maximum(rows, 1), 5.0)[:, None], WIDTH, 1)
    depth = np.minimum(depth, 5.0).astype(np.float32)
    assert Relief(smooth_picture(), depth, K).view(pose("move forward 0.3 meters")).seen.all()


def test_unknown_depth_is_taken_from_the_nearest_known_pixel() -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    depth[10:20, 10:20], depth[30:40, 30:40], depth[50:, :10] = 0, np.nan, np.inf
    assert np.allclose(Relief(smooth_picture(), depth, K).view(np.eye(4)).depth, 2.0, atol=1e-3)


def test_filling_keeps_what_was_seen_and_continues_rows_sideways() -> None:
    rgb = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    rgb[:32], rgb[32:] = (40, 80, 120), (200, 180, 160)
    seen = np.ones((HEIGHT, WIDTH), dtype=bool)
    seen[:, :40] = False
    filled = fill_holes(np.where(seen[..., None], rgb, 0).astype(np.uint8), seen.astype(np.float32), seen)
    assert np.array_equal(filled[seen], rgb[seen])
    assert np.abs(filled[4:24, :40].astype(int) - (40, 80, 120)).max() < 12
    assert np.abs(filled[40:60, :40].astype(int) - (200, 180, 160)).max() < 12


def test_nothing_seen_or_nothing_hidden_is_left_as_it_is() -> None:
    rgb, depth = smooth_picture(), np.ones((HEIGHT, WIDTH), dtype=np.float32)
    for seen in (np.zeros(depth.shape, bool), np.ones(depth.shape, bool)):
        assert np.array_equal(fill_holes(rgb, depth, seen), rgb)
