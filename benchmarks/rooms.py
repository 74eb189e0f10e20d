"""What both benchmarks work on: the trajectories that a round would ask for, through procedural rooms."""

from collections.abc import Sequence
from dataclasses import dataclass

from teacher_service.paths import from_actions
from teacher_service.worlds.base import ImagineSpec, ScenePoint
from teacher_service.worlds.renderer import RendererWorld
from trainer.imagining import FRAME_SIZE
from trainer.sampling import Candidate, candidates
from world2vlm.bundles import Frame
from world2vlm.errors import GateRejectedError

FIRST_SCENE = 900


@dataclass(frozen=True)
class Trajectory:
    """A trajectory that the gates let pass, and its number within its scene."""

    scene: int
    number: int
    candidate: Candidate


def find_trajectories(world: RendererWorld, scenes: int, each: int) -> list[Trajectory]:
    """The first trajectories that pass, at most `each` a scene, neighbours from different scenes."""
    found = (
        _first(world, scene, number, each)
        for number in range(each)
        for scene in range(FIRST_SCENE, FIRST_SCENE + scenes)
    )
    return [trajectory for trajectory in found if trajectory is not None]


def imagine(world: RendererWorld, scene: int, candidate: Candidate) -> Sequence[Frame]:
    """The key frames of a trajectory.

    Raises:
        GateRejectedError: a gate rejected it.
    """
    path = from_actions(candidate.actions, key_frames_only=True)
    spec = ImagineSpec(ScenePoint(scene, candidate.anchor), path, size=(FRAME_SIZE, FRAME_SIZE))
    return list(world.imagine(spec))


def _first(world: RendererWorld, scene: int, number: int, each: int) -> Trajectory | None:
    for candidate in candidates(0, scene, number, each):
        try:
            imagine(world, scene, candidate)
        except GateRejectedError:
            continue
        return Trajectory(scene, number, candidate)
    return None
