"""Stable Virtual Camera's camera normalisation, written again in torch as its package does it, undone by our scale."""

import numpy as np
import pytest
import torch

from teacher_service.workers.svc.conversion import count_still, make_version, metric_scale, prior_orders
from world2vlm.actions import parse_actions
from world2vlm.cameras import integrate


def normalised(chunk: torch.Tensor, scene: torch.Tensor, camera_scale: float) -> torch.Tensor:
    """Positions of a chunk's cameras after the package's own normalisation (`seva.eval.get_value_dict`)."""
    far = torch.norm(scene - scene.median(0, keepdim=True).values, dim=-1)
    kept = far <= torch.clamp(torch.quantile(far, 0.97) * 10, max=1e6)
    centred = chunk - scene[kept].mean(0, keepdim=True)
    distance = torch.norm(centred[0])
    if torch.isclose(distance, torch.zeros(1), atol=1e-5).any():
        return centred * camera_scale
    return centred * (camera_scale / distance)


PATHS = {
    "ahead": "move forward 2 meters",
    "round a corner": "move forward 1.2 meters; turn left 60 degrees; move right 0.7 meters",
    "there and back": "move forward 1 meters; move backward 2 meters; move forward 1 meters",
    "turns alone": "turn right 90 degrees",
    "one step after many turns": "; ".join(["turn left 10 degrees"] * 60 + ["move forward 0.5 meters"]),
    "far away at the end": "; ".join(["move left 0.01 meters"] * 80 + ["move forward 90 meters"]),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("units", [0.5, 1.0, 3.0])
def test_metres_survive_the_normalisation_of_every_chunk(path: str, units: float) -> None:
    scene = torch.tensor(integrate(parse_actions(PATHS[path]))[:, :3, 3], dtype=torch.float32)
    for start in range(len(scene)):
        chunk = scene[start:]
        scale = metric_scale(chunk[0].numpy(), scene.numpy(), units)
        moved = normalised(chunk, scene, scale)
        torch.testing.assert_close(moved - moved[0], units * (chunk - chunk[0]), atol=2e-5 * units, rtol=1e-4)


def test_the_package_s_own_scale_would_inflate_a_short_way_and_differ_between_chunks() -> None:
    scene = torch.tensor(integrate(parse_actions("; ".join(["move forward 0.1 meters"] * 4)))[:, :3, 3]).float()
    whole = normalised(scene, scene, 2.0)
    later = normalised(scene[1:], scene, 2.0)
    assert float(torch.norm(whole[1] - whole[0])) == pytest.approx(1.0)  # ten times the 0.1 m
    assert float(torch.norm(later[1] - later[0])) == pytest.approx(2.0)  # and twice that in another chunk


def test_every_version_dict_is_fresh() -> None:
    first = make_version(576, 50, 4.0)
    first["options"]["num_frames"] = first["H"] = 0
    assert make_version(576, 50, 4.0)["H"] == 576
    assert "num_frames" not in make_version(576, 50, 4.0)["options"]


def test_poses_before_the_first_move_show_the_photo_and_those_after_a_return_do_not() -> None:
    poses = integrate(parse_actions("turn left 30 degrees; turn right 30 degrees"))
    assert count_still(poses) == 1
    assert count_still(np.concatenate([poses[:1]] * 3 + [poses])) == 4
    assert count_still(np.stack([np.eye(4)] * 5)) == 5


def test_anchor_views_are_spread_over_the_targets() -> None:
    assert prior_orders(1, 3) == [1.0, 1.0, 1.0]
    orders = prior_orders(40, 20)
    assert (orders[0], orders[-1], len(orders)) == (1.0, 40.0, 20)
    assert np.allclose(np.diff(orders), 39 / 19)
