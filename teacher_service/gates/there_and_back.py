"""A world that imagines every path there and back, and is judged by whether it finds its own views again."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from teacher_service.gates.keeper import with_verdicts
from teacher_service.gates.looks import judge_cycle
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict
from teacher_service.gates.views import View
from teacher_service.worlds.base import ImagineSpec, Photo, Warmable, World
from world2vlm.bundles import Frame
from world2vlm.errors import GateRejectedError
from world2vlm.images import decode_image
from world2vlm.worlds import WorldInfo


class ThereAndBack:
    """Wraps a world: A -> B -> A, each view against itself when the camera comes back.

    It costs twice the frames, and no frame is sent before the way back is imagined. A world that makes each view from
    the pose alone passes whatever it shows; it is worth its price for worlds that remember frames.

    Args:
        world: imagines.
        settings: `cycle_psnr_db` is the limit.
    """

    def __init__(self, world: World, settings: GateSettings) -> None:
        self._world = world
        self._settings = settings

    @property
    def info(self) -> WorldInfo:
        """The wrapped world's."""
        return self._world.info

    def warm(self) -> None:
        """Warm the wrapped world up; see `Warmable`."""
        if isinstance(self._world, Warmable):
            self._world.warm()

    def imagine(self, spec: ImagineSpec) -> Iterator[Frame]:
        """Yield the way there, of photos with how well it was found again; see `World.imagine`.

        Raises:
            GateRejectedError: `cycle`: a view looks different on the way back.
        """
        if not isinstance(spec.anchor, Photo):
            yield from self._world.imagine(spec)
            return
        back = tuple(replace(waypoint, actions_step=(), key_frame=False) for waypoint in spec.path[-2::-1])
        frames = list(self._world.imagine(replace(spec, path=spec.path + back)))
        if len(frames) < len(spec.path) + len(back):
            return
        for index, frame in enumerate(frames[: len(spec.path)]):
            verdict = self._verdict(frame, frames[len(frames) - 1 - index])
            if not verdict.passed:
                raise GateRejectedError(verdict.gate, verdict.figure, f"frame {index}: {verdict.sentence}")
            yield with_verdicts(frame, (verdict,))

    def _verdict(self, there: Frame, back: Frame) -> Verdict:
        first, second = (View(np.asarray(decode_image(each.png)), each.intrinsics, each.c2w) for each in (there, back))
        return judge_cycle(first, second, self._settings)
