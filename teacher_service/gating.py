"""Gates on the way out: every frame that a generative world makes of a photo is judged before anybody sees it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_service import metrics
from teacher_service.gates.keeper import Gatekeeper, with_verdicts
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.views import View
from teacher_service.options import read_table
from teacher_service.worlds.base import ImagineSpec, Photo
from world2vlm.bundles import Frame
from world2vlm.errors import InvalidInputError
from world2vlm.images import decode_image
from world2vlm.worlds import WorldInfo

Gating = Callable[[WorldInfo, ImagineSpec, Iterator[Frame]], Iterator[Frame]]
"""Passes a trajectory on, each frame with what the gates say about it (`Frame.gates`)."""


def read_gate_settings(given: Mapping[str, Any]) -> GateSettings:
    """Read the limits that differ from the defaults.

    Raises:
        InvalidInputError: an unknown limit or a bad value, named.
    """
    known = {field.name for field in fields(GateSettings)}
    if unknown := sorted(set(given) - known):
        raise InvalidInputError(f"gates: unknown limits: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return read_table(given, GateSettings, "gates")


def judged_by(settings: GateSettings, estimate: Callable[[Photo], NDArray[np.float32]] | None = None) -> Gating:
    """Judge what generative worlds make of photos; exact worlds, and scenes, need no proof.

    Args:
        settings: the limits.
        estimate: says the depth of a photo that comes without, see `Gatekeeper`; None = it stays without.
    """

    def judged(info: WorldInfo, spec: ImagineSpec, frames: Iterator[Frame]) -> Iterator[Frame]:
        if not info.generative or not isinstance(spec.anchor, Photo):
            yield from frames
            return
        keeper, is_rejected = Gatekeeper(spec.anchor, settings, estimate), False
        for frame in frames:
            pixels = np.asarray(decode_image(frame.png))
            verdicts = keeper.judge(View(pixels, frame.intrinsics, frame.c2w, frame.objects))
            failed = [verdict.gate for verdict in verdicts if not verdict.passed]
            if failed and not is_rejected:
                is_rejected = True
                metrics.REJECTED.labels(info.name, failed[0]).inc()
            yield with_verdicts(frame, verdicts)

    return judged
