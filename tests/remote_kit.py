"""Remote worlds on this machine: the real launcher, workers and conversions, around stand-ins for the models' packages.

See tests/data/standins/README.md for what the stand-ins are and are not.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from teacher_service.paths import from_actions
from teacher_service.remote import RemoteWorld
from teacher_service.worlds import hy_worldplay, svc
from teacher_service.worlds.base import ImagineSpec, Photo
from world2vlm.actions import parse_actions
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.settings import TeacherSettings

STANDINS = Path(__file__).parent / "data" / "standins"
PLANE_UNITS = 2.0
"""Where the stand-ins' painting hangs."""

_MAKE = {svc.NAME: svc.make, hy_worldplay.NAME: hy_worldplay.make}


def options(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """Options of a world over its stand-in, with weights in `folder`; small frames and few steps."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").touch()
    (folder / "weights.safetensors").touch()
    shared = {"python": sys.executable, "repository": STANDINS, "steps": 3, "start_seconds": 120.0, "restarts": 1}
    own = {
        svc.NAME: {"vae": str(folder), "side": 128},
        hy_worldplay.NAME: {"action_weights": str(folder / "weights.safetensors"), "width": 208, "height": 128},
    }
    return {**shared, **own[name], **changes}


def make_world(name: str, given: dict[str, Any]) -> RemoteWorld:
    """Make a world as the registry does."""
    return _MAKE[name](TeacherSettings(worlds=(name,), world_options={name: given}))


@contextmanager
def remote_world(name: str, folder: Path, **changes: Any) -> Iterator[RemoteWorld]:
    """A world over its stand-in, which `folder` controls; see `Controls`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANDIN_CONTROLS", str(folder))
        with closing(make_world(name, options(name, folder / "weights", **changes))) as world:
            yield world


@dataclass(frozen=True)
class Controls:
    """What a stand-in does, and what it did."""

    folder: Path

    def tell(self, about: str, what: object) -> None:
        """Say how many seconds a `step` takes, or `fail`; or how `load` goes: `fail` or `hang`; empty = well."""
        (self.folder / about).write_text(str(what))

    @property
    def steps(self) -> list[int]:
        """The steps that were begun."""
        notes = self.folder / "steps"
        return list(map(int, notes.read_text().split())) if notes.exists() else []

    def forget(self) -> None:
        """Forget all steps."""
        (self.folder / "steps").unlink(missing_ok=True)


def painting(width: int = 240, height: int = 160) -> Photo:
    """A photo of blurred noise, so that each place looks like no other."""
    noise = np.random.default_rng(5).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    return Photo(pixels, intrinsics_from_fov(70, width, height))


def spec(actions: str, **changes: Any) -> ImagineSpec:
    """What to imagine from the painting."""
    return ImagineSpec(painting(), from_actions(parse_actions(actions)), **changes)


def frames_of(world: RemoteWorld, asked: ImagineSpec) -> list[Frame]:
    """All frames of a path."""
    return list(world.imagine(asked))


def pixels_of(frame: Frame) -> NDArray[np.float64]:
    """The frame's pixels, float64 (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=np.float64)


def shift_between(before: Frame, after: Frame) -> int:
    """By how many columns what is in the middle of the first picture lies farther right in the second."""
    a, b = pixels_of(before), pixels_of(after)
    width, middle = a.shape[1], slice(a.shape[0] // 2 - 4, a.shape[0] // 2 + 4)
    core = slice(width // 2 - 8, width // 2 + 8)
    moved = {
        by: float(np.square(b[middle, core.start + by : core.stop + by] - a[middle, core]).mean())
        for by in range(8 - width // 2, width // 2 - 8)
    }
    return min(moved, key=lambda by: moved[by])


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds, and fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
