"""A world that imagines every path there and back, and is judged by whether it finds its own views again."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from teacher_service.gates.keeper import with_verdicts
from teacher_service.gates.looks import judge_cycle
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict
from teacher_service.gates.views import View
from teacher_service.paths import Waypoint
from teacher_service.worlds.base import ImagineSpec, Photo, World
from teacher_service.worlds.wrapping import WrappedWorld
from world2vlm.bundles import Frame
from world2vlm.errors import GateRejectedError
from world2vlm.images import decode_image


class ThereAndBack(WrappedWorld):
    """Wraps a world: A -> B -> A, each view against itself when the camera comes back.

    It costs twice the frames, and no frame is sent before the way back is imagined. A world that makes each view from
    the pose alone passes whatever it shows; it is worth its price for worlds that remember frames.

    Args:
        world: imagines.
        settings: `cycle_psnr_db` is the limit.
    """

    def __init__(self, world: World, settings: GateSettings) -> None:
        super().__init__(world)
        self._settings = settings

    def _way(self, path: tuple[Waypoint, ...]) -> tuple[Waypoint, ...]:
        return path + tuple(replace(waypoint, actions_step=(), key_frame=False) for waypoint in path[-2::-1])

    def _passed(self, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield the way there, of photos with how well it was found again.

        Raises:
            GateRejectedError: `cycle`: a view looks different on the way back.
        """
        if not isinstance(spec.anchor, Photo):
            yield from frames
            return
        both = list(frames)
        if len(both) < 2 * len(spec.path) - 1:
            return
        for index, frame in enumerate(both[: len(spec.path)]):
            verdict = self._verdict(frame, both[len(both) - 1 - index])
            if not verdict.passed:
                raise GateRejectedError(verdict.gate, verdict.figure, f"frame {index}: {verdict.sentence}")
            yield with_verdicts(frame, (verdict,))

    def _verdict(self, there: Frame, back: Frame) -> Verdict:
        first, second = (View(np.asarray(decode_image(each.png)), each.intrinsics, each.c2w) for each in (there, back))
        return judge_cycle(first, second, self._settings)
