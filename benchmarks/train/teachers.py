"""A second teacher: views that the geometric world imagines from rendered anchors, beside the renderer's own."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teacher_service import scenes
from teacher_service.paths import Waypoint, from_actions
from teacher_service.worlds.base import ImagineSpec, Photo, ScenePoint
from teacher_service.worlds.geometric import GeometricWorld
from teacher_service.worlds.renderer import FOV_DEG, RendererWorld
from trainer.imagining import FRAME_SIZE
from trainer.labelling import label
from trainer.sampling import Candidate, candidates
from world2vlm.bundles import Bundle, Frame, ObjectView, read_bundle, write_bundle
from world2vlm.cameras import intrinsics_from_fov
from world2vlm.errors import GateRejectedError
from world2vlm.images import decode_image, decode_map
from world2vlm.records import TaskRecord

# Rooms that no round trains or tests on.
FIRST_SCENE = 700_000
_TRAJECTORIES = 4
_SIZE = (FRAME_SIZE, FRAME_SIZE)
# An object that is mostly painted in is not to be asked about.
_LEAST_OBSERVED = 0.5


def imagine_records(root: Path, count: int) -> list[TaskRecord]:
    """Records of whole trajectories until there are `count`; their bundles are written under `root`.

    Every anchor is a rendered view with its true depth. What is where in an imagined view is what the renderer sees
    from the same pose; the picture is the geometric world's, and an object of which it was not shown half is not asked
    about.
    """
    renderer, geometric = RendererWorld(cache=2), GeometricWorld()
    found: list[TaskRecord] = []
    scene = FIRST_SCENE
    while len(found) < count:
        for number in range(_TRAJECTORIES):
            frames = _first(renderer, geometric, scene, number)
            if frames:
                bundle = Bundle(f"imagined_{scene}", f"{number:03d}", frames, {"world": geometric.info.name})
                found += label(read_bundle(write_bundle(root, bundle)), seed=0)
        scene += 1
    return found[:count]


def together(root: Path, sources: Iterable[tuple[str, Path, Sequence[TaskRecord]]]) -> list[TaskRecord]:
    """Records from several folders of bundles as records of one, `root`, which links to them by name."""
    root.mkdir(parents=True, exist_ok=True)
    records: list[TaskRecord] = []
    for name, folder, found in sources:
        if not (root / name).exists():
            os.symlink(folder.resolve(), root / name)
        records += [replace(record, images=tuple(f"{name}/{image}" for image in record.images)) for record in found]
    return records


def _first(renderer: RendererWorld, geometric: GeometricWorld, scene: int, number: int) -> tuple[Frame, ...]:
    """The first trajectory that the gates of both worlds let pass; none where none does."""
    for candidate in candidates(0, scene, number, _TRAJECTORIES):
        try:
            return tuple(_imagine(renderer, geometric, scene, candidate))
        except GateRejectedError:
            continue
    return ()


def _imagine(renderer: RendererWorld, geometric: GeometricWorld, scene: int, candidate: Candidate) -> Iterator[Frame]:
    path = from_actions(candidate.actions, key_frames_only=True)
    point = ScenePoint(scene, candidate.anchor)
    exact = list(renderer.imagine(ImagineSpec(point, path, size=_SIZE, with_instances=True)))
    photo = Photo(np.asarray(decode_image(exact[0].png)), exact[0].intrinsics, _depth(scene, candidate.anchor))
    for truth, imagined in zip(exact, _pictures(geometric, photo, path), strict=True):
        yield replace(imagined, objects=tuple(_as_shown(truth, imagined)))


def _pictures(world: GeometricWorld, photo: Photo, path: tuple[Waypoint, ...]) -> list[Frame]:
    return list(world.imagine(ImagineSpec(photo, path)))


def _depth(scene: int, anchor: int) -> NDArray[np.float32]:
    room = scenes.build_room(scene)
    view = scenes.SceneRenderer(room).render(
        scenes.anchor_pose(room, anchor), intrinsics_from_fov(FOV_DEG, *_SIZE), *_SIZE
    )
    return np.where(np.isfinite(view.depth), view.depth, 0).astype(np.float32)


def _as_shown(truth: Frame, imagined: Frame) -> Iterator[ObjectView]:
    """The objects in view; one that the picture does not really show has no area: nothing is asked about it."""
    if not imagined.observed_png:
        yield from truth.objects
        return
    instances, observed = decode_map(truth.instances_png), decode_map(imagined.observed_png) > 0
    for view in truth.objects:
        is_shown = observed[instances == view.instance_id].mean() >= _LEAST_OBSERVED
        yield view if is_shown else replace(view, area=0.0)
