"""The demonstration, from an empty folder to a report."""

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from world2vlm.datasets import load_dataset
from world2vlm.demo.follow import follow
from world2vlm.demo.load import QuestionLoad
from world2vlm.demo.memory import MemoryWatch
from world2vlm.demo.sizes import DemoSize
from world2vlm.errors import InvalidInputError, PreconditionError
from world2vlm.files import write_atomically
from world2vlm.local import Stack, StackConfig
from world2vlm.records import TaskRecord
from world2vlm.report import Timings, build_report, print_report, render_page
from world2vlm.report.asked import Asked
from world2vlm.report.pictures import make_exhibit, make_strip
from world2vlm.rounds import RoundPlan, RoundState
from world2vlm.steps_shown import open_display
from world2vlm.store import Store
from world2vlm.tasks import TASKS

_MARK = ".world2vlm-demo"
_STRIPS = 3
# Several processes share few cores: only the worker, whose training takes longest, gets more than one thread.
_ENVIRONMENT = {
    "WORLD2VLM_METRICS_PORT": "-1",
    "WORLD2VLM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_WORKER_ENVIRONMENT = {"WORLD2VLM_THREADS": "2", "OMP_NUM_THREADS": "2"}
# The client asks at the higher rate from this share of the evaluation on.
_ASK_FASTER_FROM = 0.8


def run_demo(out: Path, size: DemoSize, console: Console) -> dict[str, Any]:
    """Run one round on this machine while a client keeps asking; write `report.json` and `report.html` under `out`.

    Returns:
        The report.

    Raises:
        InvalidInputError: `out` holds something that is no demonstration's.
        UnavailableError: a process ended or was not ready in time.
        PreconditionError: the round stopped; the text says why.
    """
    _prepare(out)
    store = Store(out / "store")
    plan = _plan(size)
    state = RoundState(store, plan.id)
    started = time.time()
    console.print("Starting Valkey, teacher, student and worker")
    config = StackConfig(
        str(out / "store"), out / "logs", environment=_ENVIRONMENT, worker_environment=_WORKER_ENVIRONMENT
    )
    with Stack(config) as stack, MemoryWatch(stack.pids) as memory:
        round_started = time.time()
        state.create(plan)
        stack.advance(plan.id)
        console.print(f"Round {plan.id}; logs in {out / 'logs'}", soft_wrap=True)
        asked = _ask_and_follow(stack, store, state, size, console)
    stopped = state.stopped()
    if stopped is not None:
        raise PreconditionError(f"the round stopped: {stopped['reason']}")
    report = build_report(state, asked, Timings(started, round_started, time.time()), memory.peaks_mb)
    _write(out, store, state, report, asked)
    print_report(console, report)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
    return report


def _prepare(out: Path) -> None:
    """Empty a former demonstration's folder; touch nothing else."""
    if out.exists() and any(out.iterdir()) and not (out / _MARK).exists():
        raise InvalidInputError(f"{out} is not empty and holds no demonstration: name another folder")
    for folder in ("store", "broker", "logs"):
        shutil.rmtree(out / folder, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()


def _plan(size: DemoSize) -> RoundPlan:
    return RoundPlan(
        id=f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}",
        train_scenes=size.train_scenes,
        test_scenes=size.test_scenes,
        calibration_scenes=size.calibration_scenes,
        trajectories_per_scene=size.trajectories_per_scene,
        scenes_per_shard=size.scenes_per_shard,
        recipe=size.recipe,
    )


def _ask_and_follow(stack: Stack, store: Store, state: RoundState, size: DemoSize, console: Console) -> list[Asked]:
    """Follow the round to its end; ask from the first imagined views on, and faster around the swap."""
    places = follow(store, state)
    with open_display(console) as display:
        records: list[TaskRecord] = []
        for where in places:
            display.show(where)
            stack.check()
            records = _first_records(state)
            if records:
                break
        else:
            return []
        with QuestionLoad(stack.student_url, records, store.local("bundles"), size.background_rate) as load:
            for where in places:
                display.show(where)
                stack.check()
                if where.step == "promote" or (where.step == "evaluate" and where.share >= _ASK_FASTER_FROM):
                    load.rate = size.swap_rate
            stack.watch(size.steady_seconds)
    return load.asked


def _first_records(state: RoundState) -> list[TaskRecord]:
    """One record of each task, from the first shard that is there."""
    missing = set(state.missing_shards())
    found = next((shard.index for shard in state.shards() if shard.index not in missing), None)
    if found is None:
        return []
    first = {record.task_type: record for record in reversed(state.read_shard(found)[0])}
    return [first[task] for task in sorted(first)]


def _write(out: Path, store: Store, state: RoundState, report: dict[str, Any], asked: list[Asked]) -> None:
    bundles = store.local("bundles")
    records = load_dataset(store, report["dataset"]["digest"]).splits["test"]
    samples = (state.read_step("evaluation") or {})["samples"]
    by_task = {sample["task"]: sample for sample in reversed(samples)}
    exhibits = [
        make_exhibit(bundles, _record_of(records, by_task[task]), by_task[task]) for task in TASKS if task in by_task
    ]
    # One trajectory of each scene: scene -> folder of its bundle.
    folders = {record.meta["scene"]: str(Path(record.images[0]).parents[1]) for record in records}
    strips = [make_strip(bundles, folder) for folder in list(folders.values())[:_STRIPS]]
    write_atomically(out / "report.html", render_page(report, asked, strips, exhibits).encode())
    write_atomically(out / "report.json", json.dumps(report, indent=2, allow_nan=False).encode())


def _record_of(records: tuple[TaskRecord, ...], sample: dict[str, Any]) -> TaskRecord:
    """The task record of a sample of the evaluation."""
    return next(
        record
        for record in records
        if record.question == sample["question"] and list(record.images) == sample["images"]
    )
