"""Imagine and label: rooms or photographs in, bundles in the store and candidate task records out.

Everything here is a function of the plan: imagining a source again writes the same bundles and gives the same records,
and bundles that are already whole are not asked for again.
"""

import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainer.labelling import label
from trainer.patience import patiently
from trainer.sampling import Candidate, candidates
from trainer.sources import AnchorKind, Source, Teacher
from world2vlm.actions import Action, canonicalise, format_actions
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


@dataclass(frozen=True)
class ImaginePlan:
    """What to imagine from each source (a room, a photograph); the sources themselves come one by one."""

    seed: int
    world: str
    trajectories: int
    size: int = FRAME_SIZE


@dataclass(frozen=True)
class Imagined:
    """What came of some sources.

    Attributes:
        bundles: paths relative to the store's `bundles/`.
        records: candidate task records, images relative to the same.
        rejected: how many trajectories each gate rejected.
        aside: paths of those that are kept, relative to the store's `rejected/`.
        worlds: what the bundles say about their worlds, each world once.
    """

    bundles: tuple[str, ...]
    records: tuple[TaskRecord, ...]
    rejected: Mapping[str, int]
    aside: tuple[str, ...]
    worlds: tuple[Mapping[str, Any], ...]


@dataclass
class _Rejected:
    gates: Counter[str] = field(default_factory=Counter)
    aside: list[str] = field(default_factory=list)


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

    def imagine(self, plan: ImaginePlan, sources: Sequence[Source]) -> Imagined:
        """Imagine and label some sources.

        Raises:
            PreconditionError: the world's terms are not acknowledged: nothing is imagined that nobody may learn from.
            InvalidInputError: the world does not take such sources.
            UnavailableError, OverloadedError: the teacher stayed away or busy for `patience_s`.
            NotFoundError: a photograph has vanished from the store.
            World2VLMError: whatever else the teacher says is wrong with the plan.
        """
        worlds = {kind: self._permitted(plan.world, kind) for kind in sorted({source.kind for source in sources})}
        rejected = _Rejected()
        paths: list[str] = []
        records: list[TaskRecord] = []
        stamps: list[Mapping[str, Any]] = []
        for source in sources:
            for trajectory in range(plan.trajectories):
                bundle = self._trajectory(plan, worlds[source.kind], source, trajectory, rejected)
                if bundle is not None:
                    paths.append(bundle.relative_path.as_posix())
                    records.extend(label(bundle, plan.seed))
                    stamps.append(stamped_world(bundle.params))
        counts, aside = dict(rejected.gates), tuple(rejected.aside)
        return Imagined(tuple(paths), tuple(records), counts, aside, tuple(distinct(stamps)))

    def _permitted(self, name: str, kind: AnchorKind) -> Mapping[str, Any]:
        world = patiently(lambda: self._teacher.world(name, kind), self._patience_s)
        self._policy.check([Terms.read(world)])
        return world

    def _trajectory(
        self, plan: ImaginePlan, world: Mapping[str, Any], source: Source, trajectory: int, rejected: _Rejected
    ) -> Bundle | None:
        """The first candidate that every gate lets pass; None where none does."""
        for candidate in candidates(plan.seed, source.key, trajectory, plan.trajectories):
            wanted = _empty_bundle(plan, world, source, trajectory, candidate)
            try:
                return load_bundle(self._store, wanted) or self._ask(plan, source, candidate, wanted)
            except GateRejectedError as error:
                rejected.gates[error.gate] += 1
                if self._keep_rejected:
                    rejected.aside.append(wanted.relative_path.as_posix())
        _log.info("%s, trajectory %d: every candidate was rejected", source.scene, trajectory)
        return None

    def _ask(self, plan: ImaginePlan, source: Source, candidate: Candidate, wanted: Bundle) -> Bundle:
        """Have a bundle imagined and save its key frames, or set them aside and raise what is wrong with it."""
        try:
            frames = patiently(
                lambda: source.ask(self._teacher, self._store, plan.world, candidate, plan.size, self._keep_rejected),
                self._patience_s,
            )
        except GateRejectedError as error:
            self._set_aside(wanted, error)
            raise
        bundle = replace(wanted, frames=key_frames(frames))
        if (rejection := first_rejection(frames)) is not None:
            self._set_aside(bundle, rejection)
            raise rejection
        return save_bundle(self._store, bundle)

    def _set_aside(self, bundle: Bundle, error: GateRejectedError) -> None:
        if self._keep_rejected:
            save_bundle(self._store, replace(bundle, params={**bundle.params, **rejected_params(error)}), ASIDE)


def key_frames(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """The key frames alone, each with all the actions since the one before.

    Nobody asks about the frames between: they are there to be judged.
    """
    if all(frame.key_frame for frame in frames):
        return tuple(frames)
    kept: list[Frame] = []
    steps: list[Action] = []
    for frame in frames:
        steps += frame.actions_step
        if frame.key_frame:
            kept.append(replace(frame, actions_step=tuple(canonicalise(steps))))
            steps = []
    return tuple(kept)


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
    plan: ImaginePlan, world: Mapping[str, Any], source: Source, trajectory: int, candidate: Candidate
) -> Bundle:
    """A bundle without frames, named by what they will be a function of, which terms are not."""
    made_of = {
        **{key: value for key, value in world.items() if key not in ("terms", "generative")},
        **source.made_of(candidate),
        "actions": format_actions(candidate.actions),
        "size": plan.size,
    }
    name = hashlib.sha256(canonical_json(made_of).encode()).hexdigest()[: source.name_digits]
    return Bundle(source.scene, f"{trajectory:03d}-{name}", (), {**world, **made_of})
