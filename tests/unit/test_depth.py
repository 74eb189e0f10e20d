"""Depth of one photo: the network in the package on rooms that it never saw, and models of transformers by name."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from teacher_service.depth import TinyDepth, make_depth
from teacher_service.depth.tiny import MODEL, WEIGHTS
from teacher_service.training.depth import SHAPES
from teacher_service.training.views import FIRST_HELD_OUT_ROOM, Rooms, Shot, single_shots
from tests.depth_kit import depth_anything, depth_pro, zoedepth
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import InvalidInputError, NotFoundError

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
K = intrinsics_from_fov(60, 80, 48)
KINDS = {"depth anything": depth_anything, "zoedepth": zoedepth, "depth pro": depth_pro}


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    return list(single_shots(Rooms(FIRST_HELD_OUT_ROOM + 1000, 8, 2), SHAPES))


def relative_error(guess: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float((np.abs(guess - truth) / truth).mean())


def test_the_network_in_the_package_knows_rooms_that_it_never_saw(shots: list[Shot]) -> None:
    depth = TinyDepth()
    errors, guesses = [], []
    for shot in shots:
        found = depth.estimate(shot.view.rgb, shot.intrinsics)
        errors.append(relative_error(found, shot.view.depth))
        guesses.append(relative_error(np.full_like(found, 2.5), shot.view.depth))
    assert np.mean(errors) < 0.2
    assert np.mean(errors) < np.mean(guesses) / 2


def test_another_lens_means_another_depth(shots: list[Shot]) -> None:
    depth = TinyDepth()
    for shot in shots[:4]:
        longer = np.diag([2.0, 2.0, 1.0]) @ shot.intrinsics
        longer[:2, 2] = shot.intrinsics[:2, 2]
        # The same picture through a lens twice as long shows things that are further away.
        assert np.median(depth.estimate(shot.view.rgb, longer)) > 1.2 * np.median(
            depth.estimate(shot.view.rgb, shot.intrinsics)
        )


@pytest.mark.parametrize(("height", "width"), [(16, 16), (33, 97), (300, 100), (480, 640)])
def test_any_shape_gets_a_depth_of_its_own_shape_the_same_every_time(height: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), dtype=np.uint8)
    intrinsics = intrinsics_from_fov(54, width, height)
    found = TinyDepth().estimate(pixels, intrinsics)
    assert (found.shape, found.dtype) == ((height, width), np.float32)
    assert ((found > 0.1) & (found < 31)).all()
    assert np.array_equal(found, TinyDepth().estimate(pixels, intrinsics))


def test_its_digest_is_that_of_its_weights_and_they_are_small() -> None:
    data = (WEIGHTS / MODEL).read_bytes()
    assert TinyDepth().digest == hashlib.sha256(data).hexdigest()
    assert len(data) < 3_300_000


@pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)
def test_a_metric_model_of_transformers_by_folder(build: Callable[[Path], str], tmp_path: Path) -> None:
    name = build(tmp_path / "model")
    model = make_depth(name, "cpu")
    assert model is not None
    found = model.estimate(PIXELS, K)
    assert (found.shape, found.dtype) == ((48, 80), np.float32)
    assert (np.isfinite(found) & (found > 0)).all()
    assert np.array_equal(found, model.estimate(PIXELS, K))
    other = make_depth(name, "cpu")
    assert other is not None and other.digest == model.digest


def test_depth_pro_is_told_the_lens(tmp_path: Path) -> None:
    model = make_depth(depth_pro(tmp_path / "model"), "cpu")
    assert model is not None
    # Random weights may say "no depth" anywhere: those pixels are at a bound.
    once, twice = model.estimate(PIXELS, K), model.estimate(PIXELS, np.diag([2.0, 2.0, 1.0]) @ K)
    inside = (once > 0.011) & (twice < 999)
    assert inside.any()
    assert np.allclose(twice[inside], 2 * once[inside], rtol=1e-4)


def test_models_without_metres_or_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="relative depth"):
        make_depth(depth_anything(tmp_path / "relative", "relative"))
    name = depth_anything(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    config.write_text('{"model_type": "dpt"}', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"is a dpt; known are depth_anything"):
        make_depth(name)
    config.write_text("{", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="configuration"):
        make_depth(name)


def test_weights_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    name = depth_anything(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    lost = sorted(weights)[0]
    save_file({key: value for key, value in weights.items() if key != lost}, path, {"format": "pt"})
    with pytest.raises(InvalidInputError, match=rf"lack 1 of its tensors, for example {re.escape(lost)}"):
        make_depth(name, "cpu")


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    name = depth_anything(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match="no safetensors"):
        make_depth(name)


def test_a_model_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/nothing", "no such name"):
        with pytest.raises(NotFoundError, match="is no folder, and the hub gives no model"):
            make_depth(name)


def test_none_is_no_model_and_naming_the_tiny_one_loads_no_torch() -> None:
    assert make_depth("none") is None
    code = (
        "import sys; from teacher_service.worlds.geometric import GeometricWorld as G; G().info; "
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
