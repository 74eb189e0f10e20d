"""The recipe of the tiny inpainting model: what a warped view of a room lacks, from the room itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from teacher_service.inpainting.network import TEMPERATURE, make_network, make_scheduler, predict
from teacher_service.training.learning import Schedule, fit, recolour
from teacher_service.training.views import FIRST_HELD_OUT_ROOM, FIRST_TRAINING_ROOM, Pair, Rooms, pairs
from teacher_service.worlds.fill import fill_holes
from teacher_service.worlds.warp import Relief
from world2vlm.telemetry import progress

SHAPE = (64, 64)
# The world's own gate rejects views of which the photo shows less; and there is little to learn from small holes.
_LEAST_SEEN, _LEAST_HOLES = 0.25, 0.03
# Known pixels are pasted back over what the network says of them: it need only know that they go on.
_KNOWN_WEIGHT = 0.1


@dataclass(frozen=True)
class InpaintRecipe:
    """Everything that the weights depend on; see `training.depth.DepthRecipe`."""

    rooms: Rooms = field(default_factory=lambda: Rooms(FIRST_TRAINING_ROOM, 700, 8))
    held_out: Rooms = field(default_factory=lambda: Rooms(FIRST_HELD_OUT_ROOM, 50, 4))
    schedule: Schedule = field(default_factory=lambda: Schedule(2800))
    widths: tuple[int, ...] = (24, 48, 96, 96)
    seed: int = 0


@dataclass(frozen=True)
class HoledViews:
    """Warped views, uint8.

    Attributes:
        filled: (N, 3, H, W), holes filled smoothly.
        seen: (N, 1, H, W), 1 or 0.
        truth: (N, 3, H, W), what is really there.
    """

    filled: Tensor
    seen: Tensor
    truth: Tensor


def train_inpaint(recipe: InpaintRecipe) -> tuple[nn.Module, dict[str, float]]:
    """Render, train and measure.

    Returns:
        The network, and what it reaches on the held-out rooms: see `measure_inpaint`.
    """
    views = collect(recipe.rooms, "views to learn inpainting from")
    torch.manual_seed(recipe.seed)
    network, generator = make_network(recipe.widths), torch.Generator().manual_seed(recipe.seed)

    def loss_of(model: nn.Module, batch: int) -> Tensor:
        filled, seen, truth = _draw(views, batch, generator)
        return inpaint_loss(model, filled, seen, truth, generator)

    fitted = fit(network, loss_of, recipe.schedule, "learning to inpaint")
    return fitted, measure_inpaint(fitted, collect(recipe.held_out, "held-out views"))


def collect(rooms: Rooms, what: str) -> HoledViews:
    """Render pairs of views of some rooms and warp the first of each to the second's camera, by its true depth."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with progress(what, rooms.count * rooms.views) as advance:
        for pair in pairs(rooms, SHAPE):
            found.extend(_warp(pair))
            advance(1)
    return HoledViews(*map(torch.stack, zip(*found, strict=True)))


def _warp(pair: Pair) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield filled, seen and truth; nothing where the holes are too large or too small."""
    view = pair.before.view
    warped = Relief(view.rgb, view.depth, pair.before.intrinsics).view(pair.relative)
    if not _LEAST_SEEN <= warped.seen.mean() <= 1 - _LEAST_HOLES:
        return
    filled = fill_holes(warped.rgb, warped.depth, warped.seen)
    pictures = [filled, warped.seen[..., None].astype(np.uint8), pair.after.view.rgb]
    yield tuple(torch.from_numpy(np.moveaxis(picture, -1, 0).copy()) for picture in pictures)  # type: ignore[misc]


def _draw(views: HoledViews, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch: recoloured, mirrored or not."""
    rows = torch.randint(len(views.truth), (batch,), generator=generator)
    truth, change = recolour(views.truth[rows] / 127.5 - 1, generator)
    filled, seen = change(views.filled[rows] / 127.5 - 1), views.seen[rows].float()
    if torch.rand(1, generator=generator) < 0.5:
        return filled.flip(-1), seen.flip(-1), truth.flip(-1)
    return filled, seen, truth


def inpaint_loss(model: nn.Module, filled: Tensor, seen: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Squared error of the predicted picture, at the very noise levels that sampling goes through (DDIM, Song 2020)."""
    scheduler = make_scheduler()
    chosen = torch.randint(len(scheduler.timesteps), (len(truth),), generator=generator)
    timesteps = scheduler.timesteps[chosen]
    noise = torch.randn(truth.shape, generator=generator)
    noisy = scheduler.add_noise(truth, noise, timesteps)
    error = (predict(model, noisy, filled, seen, timesteps).float() - truth).square()
    weight = (1 - seen) + _KNOWN_WEIGHT * seen
    return (error * weight).sum() / (3 * weight.sum())


@torch.inference_mode()
def measure_inpaint(network: nn.Module, views: HoledViews) -> dict[str, float]:
    """Measure inside the holes of held-out views, in dB of PSNR, each the mean over views.

    Returns:
        `inpaint_db`; `smooth_db` of the smooth fill that it starts from; `mean_db` of the mean of what was seen.
    """
    found: dict[str, list[Tensor]] = {"inpaint_db": [], "smooth_db": [], "mean_db": []}
    generator = torch.Generator().manual_seed(0)
    for rows in torch.arange(len(views.truth)).split(32):  # type: ignore[no-untyped-call]
        truth, filled = (each[rows] / 127.5 - 1 for each in (views.truth, views.filled))
        seen = views.seen[rows].float()
        mean = ((filled * seen).sum((2, 3)) / seen.sum((2, 3)))[..., None, None].expand_as(truth)
        painted = sample(network, filled, seen, generator)
        for name, guess in (("inpaint_db", painted), ("smooth_db", filled), ("mean_db", mean)):
            error = ((guess - truth).square() * (1 - seen)).sum((1, 2, 3)) / (3 * (1 - seen).sum((1, 2, 3)))
            found[name].append(-10 * torch.log10((error / 4).clamp(min=1e-9)))
    return {name: float(torch.cat(each).mean()) for name, each in found.items()}


def sample(network: nn.Module, filled: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
    """Sample a batch by the scheduler's steps; the known pixels are not pasted back."""
    scheduler = make_scheduler()
    picture = TEMPERATURE * torch.randn(filled.shape, generator=generator)
    for step in scheduler.timesteps:
        clean = predict(network, picture, filled, seen, step.expand(len(filled)))
        picture = scheduler.step(clean, step, picture).prev_sample
    return picture
