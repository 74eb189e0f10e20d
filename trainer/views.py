"""Views: many frames of many scenes in memory, with the objects in each, ready to be trained on."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from world2vlm.boxes import Box
from world2vlm.bundles import ObjectView


@dataclass(frozen=True)
class Views:
    """N views.

    Attributes:
        frames: uint8 (N, S, S, 3), as the student sees them.
        targets: float32 (N, grid * grid, 6), `trainer.dense.patch_targets` in raster order.
        scenes: int64 (N,), the scene of each view, ascending.
        objects: the objects in each view.
    """

    frames: NDArray[np.uint8]
    targets: NDArray[np.float32]
    scenes: NDArray[np.int64]
    objects: Sequence[Sequence[ObjectView]]

    def save(self, path: Path) -> None:
        """Write `path` (safetensors) and beside it `path`.json with the objects, the latter last."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"frames": self.frames, "targets": self.targets, "scenes": self.scenes}, path)
        rows = [[asdict(view) for view in views] for views in self.objects]
        path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Views":
        """Read what `save` wrote."""
        arrays = load_file(path)
        rows = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        objects = [[ObjectView(**{**row, "box": Box(**row["box"])}) for row in views] for views in rows]
        return cls(arrays["frames"], arrays["targets"], arrays["scenes"], objects)

    @classmethod
    def concatenate(cls, parts: Iterable["Views"]) -> "Views":
        """Join parts in order."""
        parts = list(parts)
        return cls(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.targets for part in parts]),
            np.concatenate([part.scenes for part in parts]),
            [views for part in parts for views in part.objects],
        )
