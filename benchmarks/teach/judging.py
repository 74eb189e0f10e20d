"""Have the gates judge right and wrong worlds, and count."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import process_time

import numpy as np
from numpy.typing import NDArray

from benchmarks.teach.depths import DepthOf
from benchmarks.teach.mixing import walk
from benchmarks.teach.sabotage import WRONG, Place, RoomPlace, Side, scaled
from teacher_service.gates.keeper import Gatekeeper
from teacher_service.gates.settings import GateSettings
from teacher_service.gates.verdicts import Verdict
from teacher_service.gates.views import View
from teacher_service.worlds.base import Photo
from world2vlm.actions import Action, Primitive
from world2vlm.cameras import MAX_STEP_M, Floats, relative_pose
from world2vlm.reliability import wilson

_TURNS_DEG = (10.0, 60.0)
_MOVES_M = (0.2, 1.2)
_CLEARANCE_M = 0.25
_RECOVERED_DEG, _RECOVERED_SHARE = 5.0, 0.2
_MOVES = (Primitive.FORWARD, Primitive.BACKWARD, Primitive.LEFT, Primitive.RIGHT)


@dataclass(frozen=True)
class Transition:
    """From an anchor to another view, in one step or in equal ones."""

    place: Place
    pose: Floats
    depth: NDArray[np.float32] | None = None
    steps: int = 1


@dataclass
class Tally:
    """What the gates said about the views of one side.

    Attributes:
        judged, accepted: views.
        recovered: of those whose turn was measured, how many within max(5 degrees, 20%) of the commanded one.
        measured: views whose turn was measured.
        reasons: how many views each gate rejected; a view may be rejected by several.
        seconds: of processor time, one for each view.
    """

    judged: int = 0
    accepted: int = 0
    recovered: int = 0
    measured: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def add(self, verdicts: Iterable[Verdict], turn_deg: float = 0.0, seconds: float = 0.0) -> None:
        """Count a view."""
        found = list(verdicts)
        failed = [verdict.gate for verdict in found if not verdict.passed]
        self.judged += 1
        self.accepted += not failed
        self.reasons.update(set(failed))
        self.seconds.append(seconds)
        for verdict in found:
            if verdict.gate == "yaw":
                self.measured += 1
                self.recovered += verdict.figure <= max(_RECOVERED_DEG, _RECOVERED_SHARE * turn_deg)

    def as_json(self) -> dict[str, object]:
        """The counts, with Wilson's interval of the accepted share."""
        return {
            "judged": self.judged,
            "accepted": self.accepted,
            "accepted_interval": wilson(self.accepted, self.judged),
            "turns_measured": self.measured,
            "turns_recovered": self.recovered,
            "rejected_by": dict(sorted(self.reasons.items())),
            "median_ms": 1000 * float(np.median(self.seconds)) if self.seconds else 0.0,
        }


def draw_turns(places: Iterable[Place], each: int, rng: np.random.Generator) -> Iterator[Transition]:
    """Turns of 10 to 60 degrees to either side."""
    for place in places:
        for _ in range(each):
            kind = Primitive.TURN_LEFT if rng.random() < 0.5 else Primitive.TURN_RIGHT
            yield Transition(place, relative_pose(Action(kind, float(rng.uniform(*_TURNS_DEG)))))


def draw_moves(
    rooms: Iterable[RoomPlace], each: int, depth_of: DepthOf, rng: np.random.Generator
) -> Iterator[Transition]:
    """Moves of 0.2 to 1.2 m that keep clear of obstacles."""
    for room in rooms:
        depth = depth_of(room)
        for _ in range(each):
            pose = relative_pose(Action(_MOVES[rng.integers(4)], float(rng.uniform(*_MOVES_M))))
            if room.clearance(pose) >= _CLEARANCE_M:
                yield Transition(room, pose, depth, steps=math.ceil(np.linalg.norm(pose[:3, 3]) / MAX_STEP_M))


def judge_transitions(
    transitions: Iterable[Transition], sides: Mapping[str, Side], settings: GateSettings, rng: np.random.Generator
) -> dict[str, Tally]:
    """Have each side imagine each transition, and the gates judge it: every step of it must pass."""
    tallies = {name: Tally() for name in sides}
    for each in transitions:
        anchor = each.place.shoot(np.eye(4))
        turn = float(np.degrees(np.arccos(np.clip((np.trace(each.pose[:3, :3]) - 1) / 2, -1, 1))))
        for name, side in sides.items():
            keeper = Gatekeeper(Photo(anchor, each.place.intrinsics, each.depth), settings)
            keeper.judge(View(anchor, each.place.intrinsics, np.eye(4)))
            verdicts: list[Verdict] = []
            seconds = 0.0
            for step in range(1, each.steps + 1):
                pose = scaled(each.pose, step / each.steps)
                pixels = side.picture(each.place.shoot(side.pose(pose)), rng)
                start = process_time()
                verdicts += keeper.judge(View(pixels, each.place.intrinsics, pose))
                seconds += process_time() - start
            tallies[name].add(verdicts, turn, seconds / each.steps)
    return tallies


def judge_mixture(
    place: RoomPlace,
    actions: Iterable[Action],
    share: float,
    depth_of: DepthOf,
    settings: GateSettings,
    rng: np.random.Generator,
) -> dict[str, Tally]:
    """Walk a path of which a share of the key frames is wrong; see `walk`.

    Returns:
        What came of the right views (`right`) and of each kind of wrong ones.
    """
    tallies = {name: Tally() for name in ("right", *WRONG)}
    for seen in walk(place, actions, share, depth_of, settings, rng):
        tallies[seen.kind].add(seen.verdicts, seconds=seen.seconds)
    return tallies


def add_up(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Add tallies side by side."""
    total: dict[str, Tally] = {}
    for part in parts:
        for name, tally in part.items():
            sum_ = total.setdefault(name, Tally())
            sum_.judged += tally.judged
            sum_.accepted += tally.accepted
            sum_.recovered += tally.recovered
            sum_.measured += tally.measured
            sum_.reasons.update(tally.reasons)
            sum_.seconds += tally.seconds
    return total
