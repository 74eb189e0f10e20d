"""The recipe of the tiny depth network: a picture and its rays in, the logarithm of metres out."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from teacher_service.depth.network import DepthNetwork, DepthNetworkConfig
from teacher_service.training.learning import Schedule, fit, recolour
from teacher_service.training.views import (
    FIRST_HELD_OUT_ROOM,
    FIRST_TRAINING_ROOM,
    Rooms,
    single_shots,
)
from world2vlm.cameras import pixel_rays
from world2vlm.telemetry import progress

# (height, width); the squares are the renderer's, the others those of photographs.
SHAPES = ((96, 96), (96, 96), (64, 96), (80, 96), (96, 64))
_EDGES = 0.5
_SCALES = (1, 2, 4)
# How far a depth may be off, as a ratio, and still count as near (the field's delta 1).
_NEAR_ENOUGH = 1.25


@dataclass(frozen=True)
class DepthRecipe:
    """Everything that the weights depend on.

    Attributes:
        rooms: what to learn from.
        held_out: what to measure on.
        schedule: how long and how fast.
        network: sizes.
        seed: of the first weights and of the batches.
    """

    rooms: Rooms = field(default_factory=lambda: Rooms(FIRST_TRAINING_ROOM, 1600, 6))
    held_out: Rooms = field(default_factory=lambda: Rooms(FIRST_HELD_OUT_ROOM, 50, 4))
    schedule: Schedule = field(default_factory=lambda: Schedule(2400))
    network: DepthNetworkConfig = field(default_factory=DepthNetworkConfig)
    seed: int = 0


@dataclass(frozen=True)
class DepthViews:
    """Views of one shape: colours uint8 (N, 3, H, W), rays float16 (N, 2, H, W), log depth float16 (N, H, W)."""

    colours: Tensor
    rays: Tensor
    log_depth: Tensor


def train_depth(recipe: DepthRecipe) -> tuple[DepthNetwork, dict[str, float]]:
    """Render, train and measure.

    Returns:
        The network, and what it reaches on the held-out rooms: see `measure_depth`.
    """
    views = collect(recipe.rooms, "views to learn depth from")
    torch.manual_seed(recipe.seed)
    network, generator = DepthNetwork(recipe.network), torch.Generator().manual_seed(recipe.seed)
    shares = torch.tensor([float(len(each.colours)) for each in views])

    def loss_of(model: nn.Module, batch: int) -> Tensor:
        chosen = views[int(torch.multinomial(shares, 1, generator=generator))]
        rows = torch.randint(len(chosen.colours), (batch,), generator=generator)
        colours, rays, truth = _decode(chosen, rows)
        colours, _ = recolour(colours, generator)
        if torch.rand(1, generator=generator) < 0.5:
            colours, truth = colours.flip(-1), truth.flip(-1)
            rays = rays.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
        return depth_loss(model(colours, rays), truth)

    fitted = fit(network, loss_of, recipe.schedule, "learning depth")
    assert isinstance(fitted, DepthNetwork)
    return fitted, measure_depth(fitted, collect(recipe.held_out, "held-out views"))


def collect(rooms: Rooms, what: str) -> list[DepthViews]:
    """Render the views of some rooms, those of one shape together."""
    found: dict[tuple[int, ...], list[tuple[Tensor, Tensor, Tensor]]] = {shape: [] for shape in SHAPES}
    with progress(what, rooms.count * rooms.views) as advance:
        for shot in single_shots(rooms, SHAPES):
            height, width = shot.view.depth.shape
            rays = np.moveaxis(pixel_rays(shot.intrinsics, width, height)[..., :2], -1, 0)
            log_depth = np.log(np.clip(shot.view.depth, 0.2, 30.0))
            rgb = torch.from_numpy(np.moveaxis(shot.view.rgb, -1, 0).copy())
            found[height, width].append((rgb, torch.tensor(rays).half(), torch.from_numpy(log_depth).half()))
            advance(1)
    return [DepthViews(*map(torch.stack, zip(*each, strict=True))) for each in found.values() if each]


def depth_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """Mean error of log depth (N, H, W) and of its slopes at three scales, for sharp edges (Li 2018, MegaDepth)."""
    error = guess - truth
    loss = error.abs().mean()
    for scale in _SCALES:
        coarse = error[:, ::scale, ::scale]
        loss = loss + _EDGES / len(_SCALES) * (coarse.diff(dim=1).abs().mean() + coarse.diff(dim=2).abs().mean())
    return loss


@torch.inference_mode()
def measure_depth(network: DepthNetwork, views: list[DepthViews]) -> dict[str, float]:
    """Measure on views of known depth.

    Returns:
        `abs_rel`: mean of |guess - truth| / truth; `delta_1`: share of pixels within a factor of 1.25;
        `scale_spread`: standard deviation over views of the logarithm of the scale that would fit each view best;
        `constant_abs_rel`: what the views' median depth reaches everywhere.
    """
    errors, near, scales, constant = [], [], [], []
    median = torch.cat([each.log_depth.flatten().float() for each in views]).median()
    for each in views:
        for rows in torch.arange(len(each.colours)).split(32):  # type: ignore[no-untyped-call]
            colours, rays, truth = _decode(each, rows)
            difference = network(colours, rays) - truth
            errors.append((difference.exp() - 1).abs().mean((1, 2)))
            near.append((difference.abs() < math.log(_NEAR_ENOUGH)).float().mean((1, 2)))
            scales.append(difference.flatten(1).median(1).values)
            constant.append(((median - truth).exp() - 1).abs().mean((1, 2)))
    return {
        "abs_rel": float(torch.cat(errors).mean()),
        "delta_1": float(torch.cat(near).mean()),
        "scale_spread": float(torch.cat(scales).std()),
        "constant_abs_rel": float(torch.cat(constant).mean()),
    }


def _decode(views: DepthViews, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return views.colours[rows] / 127.5 - 1, views.rays[rows].float(), views.log_depth[rows].float()
