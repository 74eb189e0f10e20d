"""The steps of a round: each reads what the steps before it wrote, and writes its own result."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainer.distilling import alone, distil
from trainer.imagining import ImaginePlan, Imaginer
from trainer.labelling import balance, select_test
from trainer.licensing import check_dataset, worlds_of
from trainer.photo_data import finish_photos, missing_tasks, silent_places
from trainer.pieces import Piece
from trainer.progress import ProgressFile
from trainer.promotion import Swapper, promote
from trainer.sources import Teacher, sources_of
from trainer.tracking import Tracking
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.datasets import Dataset, load_dataset, publish_dataset
from world2vlm.errors import PreconditionError
from world2vlm.licences import STRICT, Policy, Terms, distinct
from world2vlm.records import TaskRecord
from world2vlm.rounds import RoundState
from world2vlm.splits import ENOUGH_TEST_SCENES
from world2vlm.store import Store

_log = logging.getLogger(__name__)
TEST_RECORDS_PER_TASK = 200


class RoundSteps:
    """Does the pieces of rounds.

    Args:
        store: the truth.
        teacher: who imagines.
        swapper: who serves.
        threads: torch threads for training and evaluating.
        patience_s: how long to wait for a service that is away before giving a piece back.
        work: local folder for checkpoints in the making.
        tracking: where the curves of trainings go.
        policy: whose terms are kept.
        keep_rejected: whether trajectories that a gate rejects are kept aside.
    """

    def __init__(
        self,
        store: Store,
        teacher: Teacher,
        swapper: Swapper,
        *,
        threads: int,
        patience_s: float,
        work: Path,
        tracking: Tracking,
        policy: Policy = STRICT,
        keep_rejected: bool = True,
    ) -> None:
        self._store = store
        self._imaginer = Imaginer(teacher, store, patience_s, policy, keep_rejected)
        self._policy = policy
        self._swapper = swapper
        self._threads = threads
        self._patience_s = patience_s
        self._work = work
        self._tracking = tracking
        self._steps: Mapping[str, Callable[[Piece, RoundState], None]] = {
            "imagine": self._imagine,
            "dataset": self._dataset,
            "distil": self._distil,
            "evaluate": self._evaluate,
            "promote": self._promote,
        }

    def do(self, piece: Piece) -> None:
        """Do a piece and write its result (see `trainer.runner.Steps`)."""
        state = RoundState(self._store, piece.round_id)
        started = time.monotonic()
        self._steps[piece.step](piece, state)
        seconds = round(time.monotonic() - started, 3)
        state.log_event(f"{piece.step} {piece.index}" if piece.step == "imagine" else piece.step, seconds=seconds)
        _log.info("%s took %.1f s", piece.key, seconds)

    def _imagine(self, piece: Piece, state: RoundState) -> None:
        plan = state.plan()
        shard = state.shards()[piece.index]
        wanted = ImaginePlan(plan.seed, plan.world, plan.trajectories_per_scene)
        imagined = self._imaginer.imagine(wanted, sources_of(shard))
        figures = {
            "bundles": list(imagined.bundles),
            "rejected": dict(sorted(imagined.rejected.items())),
            "worlds": [dict(world) for world in imagined.worlds],
        }
        if plan.photos:
            figures["aside"] = list(imagined.aside)
        state.write_shard(piece.index, imagined.records, figures)

    def _dataset(self, _piece: Piece, state: RoundState) -> None:
        plan = state.plan()
        records: dict[str, list[TaskRecord]] = {"train": [], "calibration": [], "test": []}
        rejected: Counter[str] = Counter()
        worlds: list[dict[str, Any]] = []
        bundles: list[str] = []
        aside: list[str] = []
        for shard in state.shards():
            found, figures = state.read_shard(shard.index)
            records[shard.split] += found
            rejected.update(figures["rejected"])
            bundles += figures["bundles"]
            aside += figures.get("aside", [])
            # Shards of an older version say nothing of worlds; their bundles do.
            worlds += figures["worlds"] if "worlds" in figures else worlds_of(self._store, figures["bundles"])
        self._policy.check(map(Terms.read, worlds))
        # These scenes are the same in every round; so is the choice among their questions.
        splits = {
            split: select_test(balance(records[split], 0), TEST_RECORDS_PER_TASK, 0)
            for split in ("calibration", "test")
        }
        splits["train"] = balance(records["train"], plan.seed)
        info = {
            "round": plan.id,
            "world": plan.world,
            "worlds": distinct(worlds),
            "bundles": len(bundles),
            "rejected": dict(sorted(rejected.items())),
        }
        if plan.photos:
            splits, weights = finish_photos(self._store, splits, bundles, aside, rejected)
            info |= {"photos": plan.photos, "missing_tasks": missing_tasks(splits), "weights": weights}
        dataset = publish_dataset(self._store, splits, info)
        state.write_step("dataset", {**info, **_describe(dataset)})

    def _distil(self, piece: Piece, state: RoundState) -> None:
        plan = state.plan()
        work = self._work / plan.id
        with alone(work):
            if state.read_step("training") is not None:
                return
            dataset = self._dataset_of(state)
            check_dataset(self._store, dataset, self._policy)
            payload = distil(
                plan,
                self._registry(plan.student),
                dataset,
                bundles=self._store.local("bundles"),
                work=work,
                threads=self._threads,
                patience_s=self._patience_s,
                tracking=self._tracking,
                on_progress=ProgressFile(self._store, piece),
            )
            state.write_step("training", payload)

    def _evaluate(self, piece: Piece, state: RoundState) -> None:
        # Torch takes seconds to import, and most workers never evaluate.
        from trainer.assessing import compare_checkpoints

        plan, training = state.plan(), _result(state, "training")
        registry = self._registry(plan.student)
        with whole(registry, training["parent"]) as parent, whole(registry, training["version"]) as child:
            payload = compare_checkpoints(
                parent,
                child,
                self._dataset_of(state),
                bundles=self._store.local("bundles"),
                seed=plan.seed,
                threads=self._threads,
                on_progress=ProgressFile(self._store, piece),
                min_scenes=ENOUGH_TEST_SCENES if plan.photos else 1,
                silent=silent_places(state) if plan.photos else {},
            )
        state.write_step("evaluation", payload)

    def _promote(self, _piece: Piece, state: RoundState) -> None:
        registry = self._registry(state.plan().student)
        payload = promote(
            _result(state, "evaluation"), _result(state, "training"), registry, self._swapper, self._patience_s
        )
        state.write_step("promotion", payload)

    def _registry(self, student: str) -> Registry:
        return Registry(self._store, student)

    def _dataset_of(self, state: RoundState) -> Dataset:
        return load_dataset(self._store, _result(state, "dataset")["digest"])


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {
        "digest": dataset.digest,
        "records": sum(map(len, dataset.splits.values())),
        "splits": {name: len(records) for name, records in dataset.splits.items()},
        "by_task": dataset.by_task,
    }


def _result(state: RoundState, step: str) -> dict[str, Any]:
    payload = state.read_step(step)
    if payload is None:
        raise PreconditionError(f"the round has no {step}.json yet")
    return payload
