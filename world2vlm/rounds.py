"""The state of a round: `rounds/<id>/` in the store. What comes next follows from which files exist, nothing else.

`plan.json`, then `shards/NNN.json` (imagined and labelled), `dataset.json`, `training.json`, `evaluation.json`,
`promotion.json`; or `stopped.json` with the reason. The first writer of a file wins, so a task may run twice.
"""

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, Self

from world2vlm.collection import Collection, check_digest, load_collection
from world2vlm.errors import DataCorruptedError, InvalidInputError, NotFoundError, PreconditionError
from world2vlm.records import TaskRecord
from world2vlm.shards import Shard, cut, draw_photos
from world2vlm.splits import Split
from world2vlm.store import Store

Step = Literal["imagine", "dataset", "distil", "evaluate", "promote", "done", "stopped"]
# What is to be done while this file is missing, in order.
_STEPS: tuple[tuple[Step, str], ...] = (
    ("dataset", "dataset"),
    ("distil", "training"),
    ("evaluate", "evaluation"),
    ("promote", "promotion"),
)
STEP_FILES = tuple(name for _, name in _STEPS)
# Scene seeds come in blocks. The first is never trained on: recipes are tried out on its first scenes, and every round
# is scored on the same held-out scenes from HELD_OUT_SEED on. (Those from 100,000 on were, until two settings of the
# recipe were changed after a look at their scores.) Then comes one block for each round's seed; the first two of these
# made and probed the base student.
SEED_BLOCK = 1_000_000
CALIBRATION_SEED = 50_000
HELD_OUT_SEED = 200_000


@dataclass(frozen=True)
class RoundPlan:
    """What a round does; by default what the demonstration does: about 3,000 trajectories through 500 rooms.

    With `photos` each photograph takes a scene's place below, and the numbers of them are upper bounds.

    Attributes:
        id: the round's name.
        seed: of the training scenes and of training.
        train_scenes: how many scenes to train on.
        test_scenes: how many scenes to hold out; the same ones in every round.
        calibration_scenes: how many scenes to fit probabilities on; the same ones in every round.
        trajectories_per_scene: how many trajectories to imagine in each scene.
        scenes_per_shard: how many scenes one task takes.
        recipe: name of the training recipe.
        steps: optimiser steps of the recipe's first stage; 0: as many as the recipe says.
        world: name of the teacher's world.
        student: name of the checkpoint registry.
        photos: digest of the collection of photographs to imagine (`world2vlm.collection`); empty = procedural rooms.
    """

    id: str
    seed: int = 7
    train_scenes: int = 450
    test_scenes: int = 60
    calibration_scenes: int = 20
    trajectories_per_scene: int = 6
    scenes_per_shard: int = 10
    recipe: str = "demo"
    steps: int = 0
    world: str = "renderer"
    student: str = "student"
    photos: str = ""

    def __post_init__(self) -> None:
        _check_id(self.id)
        if self.photos:
            check_digest(self.photos)
        for name in (
            "train_scenes",
            "test_scenes",
            "calibration_scenes",
            "trajectories_per_scene",
            "scenes_per_shard",
        ):
            if not 1 <= getattr(self, name) <= SEED_BLOCK:
                raise InvalidInputError(f"a round's {name} must be from 1 to {SEED_BLOCK}, not {getattr(self, name)}")
        if not 0 <= self.steps <= SEED_BLOCK:
            raise InvalidInputError(f"a round's steps must be from 0 to {SEED_BLOCK}, not {self.steps}")
        if not 0 <= self.seed < SEED_BLOCK:
            raise InvalidInputError(f"a round's seed must be from 0 to {SEED_BLOCK - 1}, not {self.seed}")

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards of procedural rooms: training scenes first, then those to calibrate on, then held-out ones.

        No scene is in two. `RoundState.shards` knows those of photographs as well.
        """
        start = (1 + self.seed) * SEED_BLOCK
        scenes: dict[Split, Sequence[int]] = {
            "train": range(start, start + self.train_scenes),
            "calibration": range(CALIBRATION_SEED, CALIBRATION_SEED + self.calibration_scenes),
            "test": range(HELD_OUT_SEED, HELD_OUT_SEED + self.test_scenes),
        }
        return tuple(
            Shard(index, split, scene_seeds=seeds)
            for index, (split, seeds) in enumerate(cut(scenes, self.scenes_per_shard))
        )

    def photo_shards(self, collection: Collection) -> tuple[Shard, ...]:
        """All shards of a collection, in the same order; see `draw_photos`."""
        most: dict[Split, int] = {
            "train": self.train_scenes,
            "calibration": self.calibration_scenes,
            "test": self.test_scenes,
        }
        drawn = draw_photos(collection, self.seed, most)
        return tuple(
            Shard(index, split, photos=photos)
            for index, (split, photos) in enumerate(cut(drawn, self.scenes_per_shard))
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; a plan of procedural rooms says nothing of photographs, as older plans do."""
        payload = asdict(self)
        return payload if self.photos else {name: value for name, value in payload.items() if name != "photos"}

    @classmethod
    def from_json(cls, payload: Any) -> Self:
        """Read a JSON object.

        Raises:
            InvalidInputError: keys are missing or unknown, or a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(payload, dict) or {*payload, "photos"} != known:
            raise InvalidInputError("not a round's plan: keys are missing or unknown")
        try:
            return cls(**payload)
        except TypeError as error:
            raise InvalidInputError(f"not a round's plan: {error}") from error


@dataclass(frozen=True)
class Event:
    """Something that happened in a round: when (UTC, ISO 8601), what, and figures."""

    at: str
    text: str
    figures: Mapping[str, Any]


class RoundState:
    """The files of one round."""

    def __init__(self, store: Store, id: str) -> None:
        """Open the state of round `id`; nothing is created before `create`."""
        self._store = store
        self._root = f"rounds/{_check_id(id)}"

    def create(self, plan: RoundPlan) -> bool:
        """Write the plan; nothing changes where the same plan is there.

        Returns:
            Whether it was not there.

        Raises:
            PreconditionError: the round exists with another plan.
        """
        if f"rounds/{plan.id}" != self._root:
            raise InvalidInputError(f"the plan of round {plan.id!r} does not belong to {self._root}")
        is_new = self._store.create_json(f"{self._root}/plan.json", plan.to_json())
        if not is_new and self.plan() != plan:
            raise PreconditionError(f"round {plan.id!r} exists with another plan")
        return is_new

    def plan(self) -> RoundPlan:
        """The plan.

        Raises:
            NotFoundError: no such round.
            DataCorruptedError: the plan is broken.
        """
        path = f"{self._root}/plan.json"
        try:
            return RoundPlan.from_json(self._store.read_json(path))
        except NotFoundError as error:
            name = self._root.removeprefix("rounds/")
            raise NotFoundError(f"no round {name!r}; `world2vlm rounds list` shows them") from error
        except InvalidInputError as error:
            raise DataCorruptedError(f"{path}: {error}") from error

    def shards(self) -> tuple[Shard, ...]:
        """All shards of the plan, with the photographs that it names by their collection's digest.

        Raises:
            NotFoundError: no such round, or its collection is not in the store.
            DataCorruptedError: either is broken.
        """
        plan = self.plan()
        return plan.photo_shards(load_collection(self._store, plan.photos)) if plan.photos else plan.shards

    def shard_path(self, index: int) -> str:
        """Where a shard's result lies in the store."""
        return f"{self._root}/shards/{index:03d}.json"

    def write_shard(self, index: int, records: Sequence[TaskRecord], figures: Mapping[str, Any]) -> None:
        """Write a shard's task records, with figures about them; the first result stands."""
        payload = {"figures": dict(figures), "records": [record.to_json() for record in records]}
        self._store.create_json(self.shard_path(index), payload)

    def read_shard(self, index: int) -> tuple[list[TaskRecord], dict[str, Any]]:
        """A shard's task records and figures.

        Raises:
            NotFoundError: the shard is missing.
            DataCorruptedError: it is broken.
        """
        path = self.shard_path(index)
        payload = self._store.read_json(path)
        try:
            return [TaskRecord.from_json(record) for record in payload["records"]], dict(payload["figures"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataCorruptedError(f"{path}: {error}") from error

    def missing_shards(self) -> list[int]:
        """Indices of the plan's shards that have no result yet."""
        found = set(self._store.list(f"{self._root}/shards"))
        return [shard.index for shard in self.shards() if self.shard_path(shard.index) not in found]

    def write_step(self, name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Write the result of a step (one of `STEP_FILES`).

        Returns:
            The result that stands: the one written first.
        """
        path = self._step_path(name)
        self._store.create_json(path, dict(payload))
        standing: dict[str, Any] = self._store.read_json(path)
        return standing

    def read_step(self, name: str) -> dict[str, Any] | None:
        """The result of a step (one of `STEP_FILES`); None where there is none yet."""
        try:
            payload: dict[str, Any] = self._store.read_json(self._step_path(name))
        except NotFoundError:
            return None
        return payload

    def stop(self, reason: str, **figures: Any) -> None:
        """End the round before its promotion; the first reason stands."""
        self._store.create_json(f"{self._root}/stopped.json", {"reason": reason, "at": _now(), "figures": figures})

    def stopped(self) -> dict[str, Any] | None:
        """Why the round was stopped: `reason`, `at`, `figures`; None where it was not."""
        try:
            payload: dict[str, Any] = self._store.read_json(f"{self._root}/stopped.json")
        except NotFoundError:
            return None
        return payload

    def status(self) -> Step:
        """Which step is next; `done` or `stopped` where none is.

        Raises:
            NotFoundError: no such round.
        """
        found = set(self._store.children(self._root))
        if "promotion.json" in found:
            return "done"
        if "stopped.json" in found:
            return "stopped"
        if self.missing_shards():
            return "imagine"
        return next(step for step, name in _STEPS if f"{name}.json" not in found)

    def log_event(self, text: str, **figures: Any) -> None:
        """Append an event; each is a file of its own, so that writers never meet."""
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        self._store.write_json(f"{self._root}/events/{name}", {"at": _now(), "text": text, "figures": figures})

    def events(self) -> list[Event]:
        """All events, in order of time."""
        return [Event(**self._store.read_json(path)) for path in self._store.list(f"{self._root}/events")]

    def _step_path(self, name: str) -> str:
        if name not in STEP_FILES:
            raise InvalidInputError(f"unknown step {name!r}; the steps are {', '.join(STEP_FILES)}")
        return f"{self._root}/{name}.json"


def list_rounds(store: Store) -> list[str]:
    """Ids of all rounds that have a plan."""
    return [name for name in store.children("rounds") if store.exists(f"rounds/{name}/plan.json")]


def _check_id(id: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", id) is None:
        raise InvalidInputError(f"bad id of a round: {id!r}")
    return id


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
