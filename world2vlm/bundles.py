"""Bundles: one imagined trajectory on disk, in World2VLM's layout.

`scenes/<scene>/traj_<id>/` holds `frames/000.png ...` and, written last, `traj.json`. Where the world says what it
filled in or what is what, `observed/` and `instances/` hold maps of the same names. Beside World2VLM's keys
(`traj_params`, `actions_step`, `actions_prefix`, `frame_ids_kept`, `key_frame_indices`, `transforms`) `traj.json`
carries the objects in view of each frame and where the frames come from. A folder without it is no bundle.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from world2vlm.actions import Action, canonicalise, parse_short
from world2vlm.boxes import Box
from world2vlm.errors import DataCorruptedError, GateRejectedError

REJECTED = "rejected"
"""Among a bundle's params where a gate rejected it: `gate`, `figure`, `message`. Nobody learns from such a bundle."""

_OBSERVED = "observed"


@dataclass(frozen=True)
class ObjectView:
    """A physical object as seen in one frame.

    Attributes:
        instance_id: the same in all frames of a bundle.
        category: what it is called.
        colour: its colour in a word; empty where nobody says.
        box: around what of it is visible.
        area: share of the image's pixels that show it; 0 = it is in view, but too little of it is certain to ask.
    """

    instance_id: int
    category: str
    colour: str
    box: Box
    area: float


@dataclass(frozen=True)
class GateVerdict:
    """What a gate says about a frame: the figure it measured, and why it failed (empty where it passed)."""

    name: str
    figure: float
    passed: bool
    reason: str = ""


@dataclass(frozen=True)
class Frame:
    """One frame of a trajectory.

    Attributes:
        png: the encoded image; empty where a bundle was read without its pixels.
        c2w: float64 (4, 4), relative to the anchor camera.
        intrinsics: K, float64 (3, 3), pixels.
        size: (width, height) in pixels.
        actions_step: the actions since the frame before.
        key_frame: at the end of an action (or the anchor).
        objects: the objects in view.
        instances_png: encoded 8-bit map of instance ids; empty where the world sends none.
        observed_png: encoded 8-bit map of what was observed (255) or filled in by the world (0); empty = all observed,
            or read without its pixels (`read_observed` reads it).
        scores: the world's figures about this frame.
        path: the image's path relative to the bundle.
        gates: what the gates say about this frame.
    """

    png: bytes
    c2w: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    size: tuple[int, int]
    actions_step: tuple[Action, ...] = ()
    key_frame: bool = True
    objects: tuple[ObjectView, ...] = ()
    instances_png: bytes = b""
    scores: Mapping[str, float] = field(default_factory=dict)
    path: str = ""
    gates: tuple[GateVerdict, ...] = ()
    observed_png: bytes = b""


@dataclass(frozen=True)
class Bundle:
    """One trajectory: frames in order, the anchor first.

    Attributes:
        scene: the scene's name; splits go by it.
        trajectory: the trajectory's id within the scene.
        frames: the frames.
        params: how it was made: world, its digest, licence and terms, seed (World2VLM's `traj_params`).
    """

    scene: str
    trajectory: str
    frames: tuple[Frame, ...]
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def relative_path(self) -> Path:
        """`scenes/<scene>/traj_<id>`."""
        return Path("scenes") / self.scene / f"traj_{self.trajectory}"

    def actions_between(self, first: int, last: int) -> list[Action]:
        """Canonical actions that lead from frame `first` to the later frame `last`."""
        steps = [action for frame in self.frames[first + 1 : last + 1] for action in frame.actions_step]
        return canonicalise(steps)


def first_rejection(frames: Iterable[Frame]) -> GateRejectedError | None:
    """What the first gate that failed says about a trajectory; None where all passed."""
    for frame in frames:
        for verdict in frame.gates:
            if not verdict.passed:
                return GateRejectedError(verdict.name, verdict.figure, verdict.reason)
    return None


def rejected_params(rejection: GateRejectedError) -> dict[str, Any]:
    """What the params of a bundle that a gate rejected say besides."""
    return {REJECTED: {"gate": rejection.gate, "figure": rejection.figure, "message": str(rejection)}}


def write_bundle(root: Path, bundle: Bundle) -> Path:
    """Write a bundle under `root` in one rename; a bundle that is already there is kept (it is the same).

    Returns:
        The bundle's folder.
    """
    target = root / bundle.relative_path
    if (target / "traj.json").exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    (staging / "frames").mkdir(parents=True)
    for index, frame in enumerate(bundle.frames):
        (staging / _frame_path(index)).write_bytes(frame.png)
        for name, png in (("instances", frame.instances_png), (_OBSERVED, frame.observed_png)):
            if png:
                (staging / name).mkdir(exist_ok=True)
                (staging / _frame_path(index, name)).write_bytes(png)
    (staging / "traj.json").write_text(json.dumps(_to_json(bundle)), encoding="utf-8")
    try:
        os.rename(staging, target)
    except OSError:
        # Somebody else wrote the same trajectory meanwhile, or an older version left a broken folder.
        if not (target / "traj.json").exists():
            shutil.rmtree(target, ignore_errors=True)
            os.rename(staging, target)
        shutil.rmtree(staging, ignore_errors=True)
    return target


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle without its pixels (`Frame.path` says where they are).

    Raises:
        DataCorruptedError: `traj.json` is missing or broken.
    """
    try:
        payload = json.loads((folder / "traj.json").read_text(encoding="utf-8"))
        return _from_json(folder, payload)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataCorruptedError(f"{folder.name}: not a readable bundle: {error}") from error


def read_observed(folder: Path, index: int) -> bytes:
    """Read `Frame.observed_png` of frame `index` of a bundle; empty = all of it was observed."""
    path = folder / _frame_path(index, _OBSERVED)
    return path.read_bytes() if path.exists() else b""


def find_bundles(root: Path) -> Iterator[Path]:
    """Yield the folders of all whole bundles under `root`, in a fixed order; `root` itself where it is one."""
    if (root / "traj.json").is_file():
        # A bundle's names are those of its folder and of the one above, which `.` does not tell.
        yield root if root.name not in ("", "..") and root.parent.name else Path(os.path.abspath(root))
    yield from (path.parent for path in sorted(root.glob("**/traj_*/traj.json")))


def _frame_path(index: int, folder: str = "frames") -> str:
    return f"{folder}/{index:03d}.png"


def _short(actions: Iterable[Action]) -> list[str]:
    return [action.short for action in actions]


def _to_json(bundle: Bundle) -> dict[str, Any]:
    frames = bundle.frames
    return {
        "traj_params": dict(bundle.params),
        "frame_ids_kept": list(range(len(frames))),
        "key_frame_indices": [index for index, frame in enumerate(frames) if frame.key_frame],
        "actions_step": [_short(frame.actions_step) for frame in frames],
        "actions_prefix": [_short(bundle.actions_between(0, index)) for index in range(len(frames))],
        "transforms": {"frames": [_transform(index, frame) for index, frame in enumerate(frames)]},
        "objects": [[_object_to_json(view) for view in frame.objects] for frame in frames],
        "scores": [dict(frame.scores) for frame in frames],
        "gates": [[asdict(verdict) for verdict in frame.gates] for frame in frames],
    }


def _transform(index: int, frame: Frame) -> dict[str, Any]:
    k = frame.intrinsics
    return {
        "file_path": f"./{_frame_path(index)}",
        "fl_x": k[0, 0],
        "fl_y": k[1, 1],
        "cx": k[0, 2],
        "cy": k[1, 2],
        "w": frame.size[0],
        "h": frame.size[1],
        "transform_matrix": frame.c2w.tolist(),
    }


def _object_to_json(view: ObjectView) -> dict[str, Any]:
    return {
        "track_id": view.instance_id,
        "label": view.category,
        "colour": view.colour,
        "bbox_norm": list(view.box.corners),
        "area": view.area,
    }


def _from_json(folder: Path, payload: Mapping[str, Any]) -> Bundle:
    keys = set(payload["key_frame_indices"])
    transforms = payload["transforms"]["frames"]
    # Older bundles say nothing of gates.
    gates = payload.get("gates", [[]] * len(transforms))
    frames = tuple(
        _frame_from_json(transform, index in keys, steps, objects, scores, verdicts)
        for index, (transform, steps, objects, scores, verdicts) in enumerate(
            zip(transforms, payload["actions_step"], payload["objects"], payload["scores"], gates, strict=True)
        )
    )
    return Bundle(folder.parent.name, folder.name.removeprefix("traj_"), frames, payload["traj_params"])


def _frame_from_json(
    transform: Mapping[str, Any],
    key_frame: bool,
    steps: Sequence[str],
    objects: Sequence[Mapping[str, Any]],
    scores: Mapping[str, float],
    verdicts: Sequence[Mapping[str, Any]],
) -> Frame:
    intrinsics = np.array(
        [[transform["fl_x"], 0, transform["cx"]], [0, transform["fl_y"], transform["cy"]], [0, 0, 1]], dtype=np.float64
    )
    views = tuple(ObjectView(o["track_id"], o["label"], o["colour"], Box(*o["bbox_norm"]), o["area"]) for o in objects)
    return Frame(
        png=b"",
        c2w=np.array(transform["transform_matrix"], dtype=np.float64),
        intrinsics=intrinsics,
        size=(transform["w"], transform["h"]),
        actions_step=tuple(map(parse_short, steps)),
        key_frame=key_frame,
        objects=views,
        scores=scores,
        path=transform["file_path"].removeprefix("./"),
        gates=tuple(GateVerdict(**verdict) for verdict in verdicts),
    )
