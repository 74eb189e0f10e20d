"""A teacher that is wrong now and then: its dataset as it comes, and what the gates leave of it.

The world is the renderer, so the truth is known: of each trajectory of a dataset a share of the key frames is rendered
again from another place, or blurred, or too bright (`benchmarks.teach.sabotage.WRONG`), and still says that it is where
it was asked to be. Boxes are of what the wrong picture shows, as a detector would find them.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.teach.depths import known, unknown
from benchmarks.teach.mixing import Seen, walk
from benchmarks.teach.sabotage import RoomPlace
from teacher_service.gates.keeper import with_verdicts
from teacher_service.gates.settings import GateSettings
from trainer.labelling import balance, label
from world2vlm.actions import parse_actions
from world2vlm.bundles import Bundle, Frame, read_bundle, write_bundle
from world2vlm.images import encode_png
from world2vlm.records import TaskRecord

SHARE = 0.2
_PROCESSES = 2


@dataclass(frozen=True)
class Spoiled:
    """What became of one trajectory.

    Attributes:
        name: the bundle's path relative to its folder; the clean one and the spoiled one have the same.
        wrong: the key frames that are wrong.
        accepted: whether the gates let every view pass, steps between key frames, too; a round keeps no other.
    """

    name: str
    wrong: frozenset[int]
    accepted: bool


@dataclass(frozen=True)
class Sets:
    """Three training sets of the same size or so.

    Attributes:
        clean: of trajectories as they are.
        spoiled: of the same trajectories with wrong views in them, as no gate would leave them.
        gated: of trajectories with wrong views in them that the gates let pass, from more of them.
        trajectories: how many were walked for `gated`, and how many of them were accepted.
        wrong: records of each set that show a wrong view.
    """

    clean: list[TaskRecord]
    spoiled: list[TaskRecord]
    gated: list[TaskRecord]
    trajectories: tuple[int, int]
    wrong: dict[str, int]


def make_sets(clean: Path, spoiled: Path, names: Sequence[str], count: int, with_depth: bool) -> Sets:
    """Make the three sets, of `count` records before they are balanced.

    Args:
        clean: folder of the dataset's bundles.
        spoiled: where the spoiled ones are written.
        names: its trajectories, relative to `clean`, in the order in which they are taken.
        count: records of each set.
        with_depth: whether the gates know the anchors' depth.

    Raises:
        ValueError: there are too few trajectories.
    """
    each: dict[str, list[TaskRecord]] = {"clean": [], "spoiled": [], "gated": []}
    wrong: dict[str, frozenset[int]] = {}
    walked = accepted = 0
    for found in _spoil_all(clean, spoiled, names, with_depth):
        walked, accepted = walked + 1, accepted + found.accepted
        wrong[found.name] = found.wrong
        if len(each["clean"]) < count:
            each["clean"] += label(read_bundle(clean / found.name), seed=0)
            each["spoiled"] += label(read_bundle(spoiled / found.name), seed=0)
        if found.accepted:
            each["gated"] += label(read_bundle(spoiled / found.name), seed=0)
        if len(each["clean"]) >= count <= len(each["gated"]):
            break
    else:
        raise ValueError(f"{len(names)} trajectories give {len(each['gated'])} records that the gates let pass")
    balanced = {name: balance(records[:count], seed=0) for name, records in each.items()}
    shown = {name: sum(_shows(record, wrong) for record in records) for name, records in balanced.items()}
    return Sets(**balanced, trajectories=(walked, accepted), wrong={**shown, "clean": 0})


def spoil(clean: Path, spoiled: Path, with_depth: bool, name: str) -> Spoiled:
    """Make one trajectory's bundle with wrong views in it, and have the gates judge it; what is there is not redone."""
    if (spoiled / name / "traj.json").exists():
        params = read_bundle(spoiled / name).params
        return Spoiled(name, frozenset(params["wrong"]), params["accepted"])
    bundle = read_bundle(clean / name)
    params = bundle.params
    place = RoomPlace(params["scene_seed"], params["anchor"])
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    views = list(
        walk(place, parse_actions(params["actions"]), SHARE, known if with_depth else unknown, GateSettings(), rng)
    )
    kept = [view for view in views if view.waypoint.key_frame]
    frames = tuple(_frame(frame, view) for frame, view in zip(bundle.frames, kept, strict=True))
    wrong = [index for index, view in enumerate(kept) if view.kind != "right"]
    accepted = all(view.passed for view in views)
    told = {**params, "wrong": wrong, "accepted": accepted}
    write_bundle(spoiled, Bundle(bundle.scene, bundle.trajectory, frames, told))
    return Spoiled(name, frozenset(wrong), accepted)


def _spoil_all(clean: Path, spoiled: Path, names: Iterable[str], with_depth: bool) -> Iterator[Spoiled]:
    with get_context("spawn").Pool(_PROCESSES) as pool:
        yield from pool.imap(partial(spoil, clean, spoiled, with_depth), names)


def _frame(frame: Frame, view: Seen) -> Frame:
    """The frame that the world claims: the pose as asked for, the picture and its objects as they came."""
    shown = replace(frame, png=encode_png(view.pixels), objects=view.objects)
    return with_verdicts(shown, view.verdicts)


def _shows(record: TaskRecord, wrong: dict[str, frozenset[int]]) -> bool:
    return any(int(Path(image).stem) in wrong[str(Path(image).parents[1])] for image in record.images)
