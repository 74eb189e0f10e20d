"""Objects: which is which from view to view, by where its surface must appear, against by its name alone.

Rooms are rendered, so the truth is known. The detector is a poor one made of it: every edge of a box is off by up to 5%
of the box's side, one box in ten is missed, and nothing but boxes and labels comes out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.rooms import Trajectory, find_trajectories
from benchmarks.serve import findings
from benchmarks.serve.findings import Part
from teacher_service import scenes
from teacher_service.objects import Detection, KnownObjects, ObjectFilters, ObjectTracker
from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, ScenePoint
from teacher_service.worlds.renderer import FOV_DEG, RendererWorld
from trainer.evaluation.statistics import LEVEL, Interval, interval, resamples
from trainer.labelling import MIN_AREA
from world2vlm.boxes import SCALE
from world2vlm.bundles import Frame
from world2vlm.cameras import intrinsics_from_fov

SIZE = 160
JITTER, MISSED = 0.05, 0.1
# Pixels: farther apart than any two places of a frame are.
_FAR = 10.0 * SIZE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, eq=False)
class Sighting:
    """A detection with the id of the object that it really is of."""

    detection: Detection
    truth: int


@dataclass(frozen=True, eq=False)
class Walk:
    """Key frames of one trajectory with what was detected in them, and the depth of the first."""

    scene: int
    frames: Sequence[Frame]
    sightings: Sequence[Sequence[Sighting]]
    depth: NDArray[np.float32]


@app.command()
def main(
    scenes: Annotated[int, typer.Option(min=2, help="Rooms.")] = 60,
    trajectories: Annotated[int, typer.Option(min=1, help="Trajectories a room at most.")] = 3,
    json: Annotated[Path | None, typer.Option(help="Also write the result to this file.")] = None,
) -> None:
    """Measure the share of detections that get the right identity where two objects of their category are about."""
    head, walks = findings.header("objects", ("scipy",)), find_walks(scenes, trajectories)
    sides = {"label alone": by_label, "reprojection": by_reprojection}
    right = {name: judge(walks, side) for name, side in sides.items()}
    groups = np.array([scene for scene, _ in right["reprojection"]])
    marks = {name: np.array([mark for _, mark in each], dtype=float) for name, each in right.items()}
    shares = {name: share(groups, each) for name, each in marks.items()}
    shares["difference"] = share(groups, marks["reprojection"] - marks["label alone"])
    n = len(groups)
    print(f"{n} detections of {len(walks)} walks through {len(set(groups.tolist()))} rooms")
    for name, each in shares.items():
        print(f"{name:<14}{each.value:.3f}  {LEVEL:.0f}%: {each.low:.3f} to {each.high:.3f}")
    if json is not None:
        figures = {"detections": n, "walks": len(walks), **{name: vars(each) for name, each in shares.items()}}
        findings.write(json, head, {"scenes": scenes, "trajectories": trajectories}, {"identity": Part(figures)})


def find_walks(count: int, each: int) -> list[Walk]:
    """Walks through procedural rooms with what a poor detector sees on them."""
    world = RendererWorld()
    return [_walk(world, found) for found in find_trajectories(world, count, each)]


def by_reprojection(walk: Walk) -> Iterator[list[int]]:
    """For each frame the id that the tracker gives to each sighting; 0 where it takes it for none."""
    boxes: list[Detection] = []
    tracker = ObjectTracker(walk.depth, walk.frames[0].intrinsics, (SIZE, SIZE), _Given(boxes), ObjectFilters())
    for frame, sightings in zip(walk.frames, walk.sightings, strict=True):
        boxes[:] = [sighting.detection for sighting in sightings]
        views = {view.box.corners: view.instance_id for view in tracker.add(frame).objects}
        yield [views.get(_thousandths(each.detection), 0) for each in sightings]


def by_label(walk: Walk) -> Iterator[list[int]]:
    """For each frame the id of the nearest object of that label, each once; new ones where there are too few."""
    tracks: list[Detection] = []
    for sightings in walk.sightings:
        gaps = np.array([[_gap(track, each.detection) for track in tracks] for each in sightings])
        taken = {}
        if gaps.size:
            pairs = zip(*linear_sum_assignment(gaps), strict=True)
            taken = {int(row): int(column) for row, column in pairs if gaps[row, column] < _FAR}
        ids = []
        for index, each in enumerate(sightings):
            if index in taken:
                tracks[taken[index]] = each.detection
                ids.append(taken[index] + 1)
            else:
                tracks.append(each.detection)
                ids.append(len(tracks))
        yield ids


def judge(walks: Sequence[Walk], side: Callable[[Walk], Iterator[list[int]]]) -> list[tuple[int, bool]]:
    """(scene, right or not) of every detection after the first frame that its label alone does not settle."""
    return [(walk.scene, mark) for walk in walks for mark in _judge_one(walk, side)]


def share(groups: NDArray[np.int64], marks: NDArray[np.float64]) -> Interval:
    """The mean of marks with an interval by bootstrap over their scenes."""
    scenes_, index = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(index, marks), np.bincount(index)
    weights = resamples(len(scenes_), 0)
    return interval(weights @ sums / (weights @ counts))


class _Given:
    """A detector that says what it was told."""

    digest = "given"

    def __init__(self, detections: list[Detection]) -> None:
        self._detections = detections

    def detect(self, frame: Frame) -> tuple[Detection, ...]:
        return tuple(self._detections)


def _judge_one(walk: Walk, side: Callable[[Walk], Iterator[list[int]]]) -> Iterator[bool]:
    # True id -> the id that the side gave it first.
    first: dict[int, int] = {}
    labels: dict[int, str] = {}
    for index, (sightings, ids) in enumerate(zip(walk.sightings, side(walk), strict=True)):
        labels |= {each.truth: each.detection.label for each in sightings}
        twins = Counter(labels.values())
        given = set(first.values())
        for each, own in zip(sightings, ids, strict=True):
            known = each.truth in first
            if index and twins[each.detection.label] > 1:
                yield own == first[each.truth] if known else own not in given
            if not known:
                first[each.truth] = own


def _walk(world: RendererWorld, found: Trajectory) -> Walk:
    path = from_actions(found.candidate.actions, key_frames_only=True)
    point = ScenePoint(found.scene, found.candidate.anchor)
    spec = ImagineSpec(point, path, size=(SIZE, SIZE), with_instances=True)
    frames = list(world.imagine(spec))
    rng = np.random.default_rng([found.scene, found.number])
    room = scenes.build_room(found.scene)
    pose = scenes.anchor_pose(room, found.candidate.anchor)
    view = scenes.SceneRenderer(room).render(pose, intrinsics_from_fov(FOV_DEG, SIZE, SIZE), SIZE, SIZE)
    return Walk(found.scene, frames, [list(_sight(frame, rng)) for frame in frames], view.depth)


def _sight(frame: Frame, rng: np.random.Generator) -> Iterator[Sighting]:
    for view, exact in zip(frame.objects, KnownObjects().detect(frame), strict=True):
        x1, y1, x2, y2 = exact.box
        moves = rng.uniform(-JITTER, JITTER, 4) * [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
        if view.area >= MIN_AREA and rng.random() >= MISSED:
            corners = np.clip(np.add(exact.box, moves), 0, SIZE)
            box = float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])
            yield Sighting(replace(exact, box=box, mask=None), view.instance_id)


def _gap(track: Detection, detection: Detection) -> float:
    if track.label != detection.label:
        return _FAR
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = track.box, detection.box
    return float(np.hypot(ax1 + ax2 - bx1 - bx2, ay1 + ay2 - by1 - by2) / 2)


def _thousandths(detection: Detection) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (round(edge / SIZE * SCALE) for edge in detection.box)
    return x1, y1, x2, y2


if __name__ == "__main__":
    app()
