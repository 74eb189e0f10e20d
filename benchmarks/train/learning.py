"""What the built-in student learns: from which tasks, from how many records, in how long; all on one dataset."""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from benchmarks.serve.findings import Claim, Part
from benchmarks.train.teachers import imagine_records, together
from trainer.assessing import score_checkpoint
from trainer.evaluation import Scored, baseline_scores, paired_bootstrap, summarise
from trainer.progress import advancing
from trainer.recipes import Recipe, load_recipe
from trainer.stages import train_student
from world2vlm.base_student import BASE_STUDENT
from world2vlm.datasets import pick_dataset
from world2vlm.files import write_atomically
from world2vlm.records import TaskRecord
from world2vlm.store import Store

ABLATIONS = ("forward-only", "inverse-only")
BOTH = "demo"
RECORDS = (1_000, 3_000, 10_000, 30_000)
TEACHER_RECORDS = (1_000, 10_000)
STEPS = (150, 300, 600, 1_200)


@dataclass(frozen=True)
class Trained:
    """A student and what it cost: processor seconds of the training, the questions that it was scored on."""

    scored: Sequence[Scored]
    seconds: float
    records: int


class School:
    """Trains the base student by recipes on parts of one dataset, and scores what comes out on its held-out rooms.

    Args:
        root: the store.
        digest: of the dataset; empty: the only one.
        work: folder of what was trained; a training that is there already is not done again.
        threads: torch threads of a training.
    """

    def __init__(self, root: str, digest: str, work: Path, threads: int) -> None:
        store = Store(root)
        self._dataset = pick_dataset(store, digest)
        self.bundles = store.local("bundles")
        self.work, self._threads = work, threads
        self.train_records = self._dataset.splits["train"]
        self.baselines = baseline_scores(self.train_records, self._dataset.splits["test"], 0)

    @property
    def describe(self) -> Mapping[str, Any]:
        """The dataset, for the result."""
        splits = {name: len(records) for name, records in self._dataset.splits.items()}
        return {"dataset": self._dataset.digest, "splits": splits, "threads": self._threads}

    def train(self, recipe: Recipe, records: Sequence[TaskRecord], bundles: Path | None = None) -> Trained:
        """Train by a recipe on some records, and answer the held-out questions.

        The records are of the dataset, or of `bundles`.
        """
        recipe = recipe.adjusted(threads=self._threads)
        asked = "".join(sorted(f"{record.images}{record.question}" for record in records))
        work = self.work / f"{recipe.digest[:12]}-{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
        cost = work / "seconds.json"
        if not cost.exists():
            # One that was killed is begun anew: continued, it would seem to have cost its last part alone.
            shutil.rmtree(work, ignore_errors=True)
            begin = time.process_time()
            with advancing(f"{recipe.name}, {len(records)} records") as on_progress:
                train_student(recipe, BASE_STUDENT, records, bundles or self.bundles, work, on_progress)
            write_atomically(cost, json.dumps(time.process_time() - begin).encode())
        folder = work / ("grpo" if recipe.grpo is not None else "sft")
        scored = score_checkpoint(folder, self._dataset.splits["test"], self.bundles, lambda done, total: None)
        return Trained(scored, json.loads(cost.read_bytes()), len(recipe.select(records)))

    def figures(self, trained: Trained) -> dict[str, Any]:
        """Skill by task and over tasks, with intervals, and the cost."""
        found = summarise(trained.scored, self.baselines, 0)
        keys = ("skill", "skill_low", "skill_high", "score", "n")
        skills = {task: {key: figures[key] for key in keys} for task, figures in found.items()}
        return {"records": trained.records, "cpu_seconds": trained.seconds, **skills}


def ablation(school: School) -> Part:
    """Half of the tasks each against both halves, the same steps: the paper's ablation on our data."""
    trained = {name: school.train(load_recipe(name), school.train_records) for name in (BOTH, *ABLATIONS)}
    figures: dict[str, Any] = {**school.describe}
    claims = []
    for name, each in trained.items():
        figures[name] = school.figures(each)
        if name != BOTH:
            gap = paired_bootstrap(each.scored, trained[BOTH].scored, school.baselines, 0).macro
            figures[f"{BOTH} over {name}"] = asdict(gap)
            claims.append(Claim(f"macro skill of both halves over {name}, lower bound", gap.low, 0, is_least=True))
    return Part(figures, claims)


def by_records(school: School) -> Part:
    """The demo's recipe on more and more trajectories, all in the end: skill against records, fitted."""
    figures: dict[str, Any] = {**school.describe}
    for count in (*(count for count in RECORDS if count < len(school.train_records)), len(school.train_records)):
        trained = school.train(load_recipe(BOTH), subset(school.train_records, count))
        figures[str(count)] = school.figures(trained)
    points = [(each["records"], each["macro"]["skill"]) for each in figures.values() if "macro" in _mapping(each)]
    return Part({**figures, "fit": fit(points)})


def by_time(school: School) -> Part:
    """All records, for longer and longer: skill against processor seconds, fitted. Each length has its own schedule."""
    figures: dict[str, Any] = {**school.describe}
    base = load_recipe(BOTH)
    assert base.sft is not None
    for steps in STEPS:
        recipe = replace(base, sft=replace(base.sft, steps=steps))
        figures[f"{steps} steps"] = school.figures(school.train(recipe, school.train_records))
    points = [(each["cpu_seconds"], each["macro"]["skill"]) for each in figures.values() if "macro" in _mapping(each)]
    return Part({**figures, "fit": fit(points)})


def by_teacher(school: School) -> Part:
    """So many records of the renderer, and the same with as many of the geometric world: skill, and what it gained."""
    figures: dict[str, Any] = {**school.describe}
    for count in TEACHER_RECORDS:
        exact, folder, root = subset(school.train_records, count), school.work / "geometric", school.work / "both"
        sources = [("renderer", school.bundles, exact), ("geometric", folder, imagine_records(folder, count))]
        one = school.train(load_recipe(BOTH), exact)
        two = school.train(load_recipe(BOTH), together(root, sources), root)
        gain = paired_bootstrap(one.scored, two.scored, school.baselines, 0).macro
        figures[f"{count} renderer"] = school.figures(one)
        figures[f"{count} renderer and {count} geometric"] = school.figures(two)
        figures[f"gain at {count}"] = asdict(gain)
    return Part(figures)


def subset(records: Sequence[TaskRecord], count: int) -> list[TaskRecord]:
    """The records of whole trajectories, drawn at random, until there are `count`: as a smaller job would give."""
    by_trajectory: dict[str, list[TaskRecord]] = {}
    for record in records:
        by_trajectory.setdefault(str(Path(record.images[0]).parents[1]), []).append(record)
    names = sorted(by_trajectory)
    random.Random(0).shuffle(names)
    return [record for name in names for record in by_trajectory[name]][:count]


def fit(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Least squares of skill = ceiling / (1 + (half / x)^slope); empty where there are too few points."""
    if len(points) < 4:
        return {}
    x, y = np.array(points, dtype=np.float64).T

    def curve(x: Any, ceiling: float, log_half: float, slope: float) -> Any:
        return ceiling / (1 + np.exp(slope * (log_half - np.log(x))))

    bounds = ([0, 0, 0.1], [1, np.log(100 * x.max()), 10])
    (ceiling, log_half, slope), _ = curve_fit(curve, x, y, p0=(y.max(), np.log(np.median(x)), 1), bounds=bounds)
    error = float(np.sqrt(np.mean((curve(x, ceiling, log_half, slope) - y) ** 2)))
    return {"ceiling": float(ceiling), "half": float(np.exp(log_half)), "slope": float(slope), "rms_error": error}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
