"""A trajectory of which some key frames are wrong, and what the gates say about each of its views."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import process_time

import numpy as np

from benchmarks.teach.depths import DepthOf
from benchmarks.teach.sabotage import RIGHT, WRONG, Pixels, RoomPlace
from teacher_service.gates.keeper import Gatekeeper
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict
from teacher_service.gates.views import View
from teacher_service.paths import Waypoint, from_actions
from teacher_service.worlds.base import Photo
from world2vlm.actions import Action
from world2vlm.bundles import ObjectView


@dataclass(frozen=True)
class Seen:
    """One view of a trajectory.

    Attributes:
        waypoint: where the world says it is.
        kind: `right`, or a name among `WRONG`.
        pixels: uint8 (height, width, 3), what it shows.
        objects: what is in view in the picture, wherever that was taken: what a detector would find in it.
        verdicts: the gates'.
        seconds: of processor time that they took.
    """

    waypoint: Waypoint
    kind: str
    pixels: Pixels
    objects: tuple[ObjectView, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no gate rejects it."""
        return all(verdict.passed for verdict in self.verdicts)


def walk(
    place: RoomPlace,
    actions: Iterable[Action],
    share: float,
    depth_of: DepthOf,
    settings: GateSettings,
    rng: np.random.Generator,
) -> Iterator[Seen]:
    """Walk a path of which a share of the key frames is wrong, each in a way of its own drawn by chance.

    Steps between key frames are right, and so is what comes after a wrong one: it is the single view that must not
    survive. The anchor comes first; it is right.
    """
    names = list(WRONG)
    keeper = Gatekeeper(Photo(place.shoot(np.eye(4)), place.intrinsics, depth_of(place)), settings)
    start = np.eye(4)
    for waypoint in from_actions(list(actions)):
        wrong = waypoint.key_frame and bool(waypoint.actions_step) and rng.random() < share
        kind = names[rng.integers(len(names))] if wrong else "right"
        side = WRONG[kind] if wrong else RIGHT["right"]
        actual = start @ side.pose(np.linalg.inv(start) @ waypoint.c2w)
        pixels, objects = side.picture(place.shoot(actual), rng), place.objects(actual)
        clock = process_time()
        verdicts = keeper.judge(View(pixels, place.intrinsics, waypoint.c2w, objects))
        yield Seen(waypoint, kind, pixels, objects, verdicts, process_time() - clock)
        if waypoint.key_frame:
            start = waypoint.c2w
