"""How far a world can be trusted, from what the gates said about its views, and what that makes its records weigh."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from world2vlm.bundles import Bundle, Frame, read_bundle
from world2vlm.store import Store

World = tuple[str, str]
"""A world's name and the digest of its weights."""
FOLDERS = ("bundles", "rejected")
"""The store's folders of trajectories: what every gate let pass, and what one rejected."""

# Pose errors at which a record weighs half as much.
_HALF_DEG, _HALF_M = 5.0, 0.25
_DEGREES = ("gate_yaw_error_deg", "gate_reprojection_error_deg")
_METRES = "gate_reprojection_error_m"
_CONFIDENCE = 1.959964


@dataclass(frozen=True)
class Reliability:
    """What the gates say about one world.

    Attributes:
        accepted: views that every gate let pass.
        judged: views that a gate judged.
        error_deg: mean error of the accepted views' rotation as the gates estimate it; None where none did.
        error_m: the same of the way from the anchor.
        exact: the world shows what it knows and imagines nothing, so that no gate needs to judge it.
    """

    accepted: int = 0
    judged: int = 0
    error_deg: float | None = None
    error_m: float | None = None
    exact: bool = False

    @property
    def accept_rate(self) -> float:
        """Share of the judged views that passed; 0 where none was judged."""
        return self.accepted / self.judged if self.judged else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accept rate."""
        return wilson(self.accepted, self.judged)

    @property
    def weight(self) -> float:
        """What a record from this world weighs, 0 to 1.

        1 for exact worlds, else `low / ((1 + (error_deg / 5)^2) (1 + (error_m / 0.25)^2))`, where `low` is the lower
        end of the accept rate's interval: it grows with the rate and with what is known of it, and falls with either
        error. An error that no gate could estimate counts as none: views were judged by their direction then.
        """
        if self.exact:
            return 1.0
        turn, way = (self.error_deg or 0.0) / _HALF_DEG, (self.error_m or 0.0) / _HALF_M
        return self.interval[0] / ((1 + turn**2) * (1 + way**2))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of a share, 95%; (0, 1) where nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    share, square = successes / trials, _CONFIDENCE**2
    middle = share + square / (2 * trials)
    half = _CONFIDENCE * math.sqrt(share * (1 - share) / trials + square / (4 * trials**2))
    return max(0.0, (middle - half) / (1 + square / trials)), min(1.0, (middle + half) / (1 + square / trials))


def world_of(bundle: Bundle) -> World:
    """Which world a bundle comes from, as it says."""
    return str(bundle.params.get("world", "")), str(bundle.params.get("world_digest", ""))


def measure(bundles: Sequence[Bundle]) -> Reliability:
    """Sum up the views of one world's bundles, those that were kept and those that were rejected.

    The anchors' own views do not count: what is taken over from a photo says nothing about a world.

    Args:
        bundles: of one world.
    """
    views = [frame for bundle in bundles for frame in bundle.frames[1:] if frame.gates]
    accepted = [frame for frame in views if all(verdict.passed for verdict in frame.gates)]
    degrees = [max(found) for frame in accepted if (found := _found(frame, _DEGREES))]
    metres = [found[0] for frame in accepted if (found := _found(frame, (_METRES,)))]
    return Reliability(len(accepted), len(views), _mean(degrees), _mean(metres), _is_exact(bundles))


@dataclass(frozen=True)
class WorldRow:
    """One world of one digest, and how far its bundles in a store let it be trusted."""

    world: str
    digest: str
    bundles: int
    rejected: int
    reliability: Reliability


def reliability_table(store: Store) -> list[WorldRow]:
    """Sum up every world that bundles of a store come from, kept and rejected ones; reads `traj.json` only.

    Raises:
        DataCorruptedError: a bundle cannot be read.
    """
    kept: dict[World, list[Bundle]] = {}
    aside: dict[World, list[Bundle]] = {}
    for folder, worlds in zip(FOLDERS, (kept, aside), strict=True):
        for path in store.list(folder):
            if path.endswith("/traj.json"):
                bundle = read_bundle(store.local(path).parent)
                worlds.setdefault(world_of(bundle), []).append(bundle)
    return [
        WorldRow(*world, len(made), len(failed), measure([*made, *failed]))
        for world in sorted({*kept, *aside})
        for made, failed in [(kept.get(world, []), aside.get(world, []))]
    ]


def _is_exact(bundles: Sequence[Bundle]) -> bool:
    """Whether all bundles say that their world imagines nothing; of those that say nothing only the renderer's do."""
    return all(bundle.params.get("generative", bundle.params.get("world") != "renderer") is False for bundle in bundles)


def _found(frame: Frame, names: Sequence[str]) -> list[float]:
    return [frame.scores[name] for name in names if name in frame.scores]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
