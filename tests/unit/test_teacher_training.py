"""The recipes of the small networks: they run, come out the same, and what is in the package came from them."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from teacher_service.depth import TinyDepth
from teacher_service.depth import tiny as tiny_depth
from teacher_service.inpainting import TinyInpainter
from teacher_service.inpainting import tiny as tiny_inpainting
from teacher_service.training.__main__ import app
from teacher_service.training.depth import DepthRecipe, depth_loss
from teacher_service.training.inpaint import InpaintRecipe
from teacher_service.training.learning import Schedule, fit, recolour
from teacher_service.training.views import Rooms, pairs
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import DivergedError
from world2vlm.rounds import SEED_BLOCK

PIXELS = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
RECIPES = {"depth": (DepthRecipe(), tiny_depth), "inpaint": (InpaintRecipe(), tiny_inpainting)}


def train(command: str, folder: Path) -> dict[str, Any]:
    ended = CliRunner().invoke(app, [command, "--out", str(folder), "--rooms", "1", "--steps", "2"])
    assert ended.exit_code == 0, ended.output
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe_writes_weights_that_load_the_same_every_time(command: str, tmp_path: Path) -> None:
    card, again = (train(command, tmp_path / name) for name in ("one", "two"))
    assert card["weights"] == again["weights"]
    assert card["held_out"] == again["held_out"] and all(np.isfinite(list(card["held_out"].values())))
    if command == "depth":
        depth = TinyDepth(tmp_path / "one")
        assert depth.digest == card["weights"]["sha256"]
        assert depth.estimate(PIXELS, intrinsics_from_fov(54, 48, 32)).shape == (32, 48)
    else:
        painter = TinyInpainter(tmp_path / "one")
        assert painter.digest == card["weights"]["sha256"]
        painted = painter.paint(PIXELS, np.zeros((32, 48), bool), 0, lambda: False)
        assert painted is not None and painted.shape == PIXELS.shape


@pytest.mark.parametrize("command", RECIPES)
def test_what_is_in_the_package_came_from_the_recipe_as_it_is(command: str) -> None:
    recipe, module = RECIPES[command]
    card = json.loads((module.WEIGHTS / "card.json").read_text(encoding="utf-8"))
    assert card["recipe"] == json.loads(json.dumps(asdict(recipe)))
    assert card["weights"]["sha256"] == hashlib.sha256((module.WEIGHTS / module.MODEL).read_bytes()).hexdigest()


@pytest.mark.parametrize("command", RECIPES)
def test_no_round_and_no_benchmark_shows_the_rooms_that_it_learns_from(command: str) -> None:
    recipe, _module = RECIPES[command]
    for rooms in (recipe.rooms, recipe.held_out):
        # The last round there can be begins at a million times a million.
        assert rooms.first >= (SEED_BLOCK + 1) * SEED_BLOCK
    assert recipe.rooms.first + recipe.rooms.count <= recipe.held_out.first


def test_pairs_are_what_their_pose_says() -> None:
    found = list(pairs(Rooms(5, 2, 3), (32, 32)))
    assert len(found) >= 4
    for pair in found:
        assert np.allclose(pair.before.c2w @ pair.relative, pair.after.c2w)
        assert not np.array_equal(pair.before.view.rgb, pair.after.view.rgb)


def test_recolouring_changes_two_pictures_of_a_view_alike() -> None:
    pictures = torch.rand(3, 3, 4, 4) * 2 - 1
    changed, change = recolour(pictures, torch.Generator().manual_seed(0))
    assert torch.equal(changed, change(pictures))
    assert not torch.equal(changed, pictures)
    assert changed.min() >= -1 and changed.max() <= 1


def test_the_loss_of_depth_knows_blurred_edges_from_a_wrong_scale() -> None:
    truth = torch.zeros(1, 32, 32)
    truth[..., 16:] = 1
    blurred = torch.linspace(0, 1, 32).expand(1, 32, 32)
    assert depth_loss(truth, truth) == 0
    assert depth_loss(truth + 0.25, truth) == pytest.approx(0.25)
    assert depth_loss(blurred, truth) > (blurred - truth).abs().mean() + 0.01


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(DivergedError, match="learning rate"):
        fit(model, lambda model, batch: model(torch.full((batch, 1), torch.inf)).sum(), Schedule(2), "nothing")
