"""Checkpoints to swap: the one that is measured, another one of its kind, a corrupted one, one that is unfit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from world2vlm.checkpoints import Registry
from world2vlm.files import sha256_file
from world2vlm.store import Store
from world2vlm.vlm import StudentConfig, build_student

NAME = "student"
_WEIGHTS = "model.safetensors"
_HUGE = 1e30
_WIDTH_STEP = 64
# Of a layer with its attention and its MLP, by the square of its width.
_BYTES_A_SQUARE = 49


def open_registry(store: Path) -> Registry:
    """The registry that the measured services read."""
    return Registry(Store(str(store)), NAME)


def publish(store: Path, folder: Path, key: str) -> int:
    """Publish a folder's files; returns the version."""
    manifest = open_registry(store).publish(
        folder, parent=None, kind="full", dataset_digest="", recipe="benchmark", metrics={}, key=key
    )
    return manifest.version


def another(folder: Path, target: Path, share: float, seed: int = 0) -> Path:
    """A checkpoint of the same shape that answers differently: noise of `share` of each weight matrix's spread."""
    generator = torch.Generator().manual_seed(seed)

    def disturb(weight: torch.Tensor) -> torch.Tensor:
        if weight.ndim < 2:
            return weight
        return weight + share * weight.std() * torch.randn(weight.shape, generator=generator)

    return _changed(folder, target, disturb)


def unfit(folder: Path, target: Path) -> Path:
    """A checkpoint of finite weights that overflow on the way: only the canary can tell."""
    return _changed(folder, target, lambda weight: weight * _HUGE)


def corrupt(store: Path, version: int) -> None:
    """Flip one bit in a published checkpoint's weights."""
    path = store / f"checkpoints/{NAME}/{version}/{_WEIGHTS}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def heavy(target: Path, megabytes: float, seed: int) -> Path:
    """A student of random weights of about so many megabytes, so that memory is its weights before all."""
    # Wide and shallow, as its weights grow with the square of its width and its caches do not.
    width = _WIDTH_STEP * max(1, round((megabytes * 1e6 / _BYTES_A_SQUARE) ** 0.5 / _WIDTH_STEP))
    build_student(StudentConfig(vision_layers=1, text_layers=1, text_width=width), seed).save(target)
    return target


def weight_bytes(folder: Path) -> int:
    """The size of a checkpoint's weights."""
    return (folder / _WEIGHTS).stat().st_size


def describe(folder: Path) -> str:
    """What a checkpoint is known by, wherever it lies."""
    return f"weights sha256 {sha256_file(folder / _WEIGHTS)}"


def copied(folder: Path, target: Path) -> Path:
    """A copy that can be published: a checkpoint that was published already has a manifest of its own."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("manifest.json"))
    return target


def _changed(folder: Path, target: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    copied(folder, target)
    weights = {name: change(weight).contiguous() for name, weight in load_file(folder / _WEIGHTS).items()}
    save_file(weights, target / _WEIGHTS, metadata={"format": "pt"})
    return target
