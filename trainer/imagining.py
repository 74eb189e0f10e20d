"""Imagine and label: scenes in, bundles in the store and candidate task records out.

Everything here is a function of the plan: imagining a scene again writes the same bundles and gives the same records,
and bundles that are already whole are not asked for again.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from trainer.labelling import label
from trainer.patience import patiently
from trainer.sampling import Candidate, candidates
from world2vlm.actions import Action, format_actions
from world2vlm.bundles import Bundle, Frame, first_rejection, read_bundle, rejected_params, write_bundle
from world2vlm.errors import GateRejectedError, NotFoundError
from world2vlm.files import canonical_json
from world2vlm.licences import STRICT, Policy, Terms, distinct, stamped_world
from world2vlm.records import TaskRecord
from world2vlm.store import Store

_log = logging.getLogger(__name__)
FRAME_SIZE = 128
# Folders of the store: what is labelled, and what a gate rejected, which never is.
BUNDLES, ASIDE = "bundles", "rejected"


class Teacher(Protocol):
    """What imagining needs of the teacher service."""

    def world(self, name: str) -> Mapping[str, Any]:
        """What bundles say about the world they come from (`world2vlm.licences.stamp`)."""
        ...

    def imagine(
        self, world: str, scene: int, anchor: int, actions: Sequence[Action], size: int, keep_rejected: bool
    ) -> list[Frame]:
        """The key frames of a trajectory through a scene, `size` x `size` pixels, the anchor's view first.

        With `keep_rejected` the frames that a gate fails come, too, with its verdict among their `gates`.

        Raises:
            GateRejectedError: a gate rejected the trajectory, and there is nothing to see.
            UnavailableError: nobody answers.
            OverloadedError: too much is asked at once.
        """
        ...


@dataclass(frozen=True)
class ImaginePlan:
    """What to imagine of each scene; the scenes themselves come one by one."""

    seed: int
    world: str
    trajectories: int
    size: int = FRAME_SIZE


@dataclass(frozen=True)
class Imagined:
    """What came of some scenes.

    Attributes:
        bundles: paths relative to the store's `bundles/`.
        records: candidate task records, images relative to the same.
        rejected: how many trajectories each gate rejected.
        worlds: what the bundles say about their worlds, each world once.
    """

    bundles: tuple[str, ...]
    records: tuple[TaskRecord, ...]
    rejected: Mapping[str, int]
    worlds: tuple[Mapping[str, Any], ...]


class Imaginer:
    """Asks a teacher for trajectories and labels them.

    Args:
        teacher: who imagines.
        store: where the bundles go.
        patience_s: how long to wait for a teacher that is away or busy before giving up.
        policy: whose terms are kept.
        keep_rejected: whether trajectories that a gate rejects go to the store's `rejected/`, with the reason.
    """

    def __init__(
        self,
        teacher: Teacher,
        store: Store,
        patience_s: float = 120.0,
        policy: Policy = STRICT,
        keep_rejected: bool = True,
    ) -> None:
        self._teacher = teacher
        self._store = store
        self._patience_s = patience_s
        self._policy = policy
        self._keep_rejected = keep_rejected

    def imagine(self, plan: ImaginePlan, scenes: Sequence[int]) -> Imagined:
        """Imagine and label some scenes.

        Raises:
            PreconditionError: the world's terms are not acknowledged: nothing is imagined that nobody may learn from.
            UnavailableError, OverloadedError: the teacher stayed away or busy for `patience_s`.
            World2VLMError: whatever else the teacher says is wrong with the plan.
        """
        world = patiently(lambda: self._teacher.world(plan.world), self._patience_s)
        self._policy.check([Terms.read(world)])
        rejected: Counter[str] = Counter()
        paths: list[str] = []
        records: list[TaskRecord] = []
        worlds: list[Mapping[str, Any]] = []
        for scene in scenes:
            for trajectory in range(plan.trajectories):
                bundle = self._trajectory(plan, world, scene, trajectory, rejected)
                if bundle is not None:
                    paths.append(bundle.relative_path.as_posix())
                    records.extend(label(bundle, plan.seed))
                    worlds.append(stamped_world(bundle.params))
        return Imagined(tuple(paths), tuple(records), dict(rejected), tuple(distinct(worlds)))

    def _trajectory(
        self, plan: ImaginePlan, world: Mapping[str, Any], scene: int, trajectory: int, rejected: Counter[str]
    ) -> Bundle | None:
        """The first candidate that every gate lets pass; None where none does."""
        for candidate in candidates(plan.seed, scene, trajectory, plan.trajectories):
            wanted = _empty_bundle(plan, world, scene, trajectory, candidate)
            try:
                return load_bundle(self._store, wanted) or self._ask(plan, scene, candidate, wanted)
            except GateRejectedError as error:
                rejected[error.gate] += 1
        _log.info("scene %d, trajectory %d: every candidate was rejected", scene, trajectory)
        return None

    def _ask(self, plan: ImaginePlan, scene: int, candidate: Candidate, wanted: Bundle) -> Bundle:
        """Have a bundle imagined and save it, or set it aside and raise what is wrong with it."""
        try:
            frames = patiently(
                lambda: self._teacher.imagine(
                    plan.world, scene, candidate.anchor, candidate.actions, plan.size, self._keep_rejected
                ),
                self._patience_s,
            )
        except GateRejectedError as error:
            self._set_aside(wanted, error)
            raise
        bundle = replace(wanted, frames=tuple(frames))
        if (rejection := first_rejection(bundle.frames)) is not None:
            self._set_aside(bundle, rejection)
            raise rejection
        return save_bundle(self._store, bundle)

    def _set_aside(self, bundle: Bundle, error: GateRejectedError) -> None:
        if self._keep_rejected:
            save_bundle(self._store, replace(bundle, params={**bundle.params, **rejected_params(error)}), ASIDE)


def scene_name(seed: int) -> str:
    """The name of a procedural scene in bundles and records."""
    return f"room_{seed}"


def save_bundle(store: Store, bundle: Bundle, root: str = BUNDLES) -> Bundle:
    """Write a bundle under a folder of the store and return it as it reads back (frames know their paths)."""
    if store.is_local:
        return read_bundle(write_bundle(Path(store.root) / root, bundle))
    with tempfile.TemporaryDirectory() as folder:
        written = write_bundle(Path(folder), bundle)
        # A reader trusts only a folder with a traj.json, so that goes last.
        for path in sorted(written.rglob("*.*"), key=lambda path: (path.name == "traj.json", path)):
            store.upload(path, f"{root}/{path.relative_to(folder).as_posix()}")
        return read_bundle(written)


def load_bundle(store: Store, bundle: Bundle) -> Bundle | None:
    """The bundle of the same scene and trajectory in the store, without its pixels; None where there is none."""
    path = f"{BUNDLES}/{bundle.relative_path.as_posix()}"
    if store.is_local:
        folder = Path(store.root) / path
        return read_bundle(folder) if (folder / "traj.json").exists() else None
    try:
        store.local(f"{path}/traj.json")
    except NotFoundError:
        return None
    return read_bundle(store.local(path))


def _empty_bundle(
    plan: ImaginePlan, world: Mapping[str, Any], scene: int, trajectory: int, candidate: Candidate
) -> Bundle:
    """A bundle without frames, named by what they will be a function of, which terms are not."""
    made_of = {
        **{key: value for key, value in world.items() if key not in ("terms", "generative")},
        "scene_seed": scene,
        "anchor": candidate.anchor,
        "actions": format_actions(candidate.actions),
        "size": plan.size,
    }
    name = hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[:8]
    return Bundle(scene_name(scene), f"{trajectory:03d}-{name}", (), {**world, **made_of})
