"""Fine-tuning side by side: `trainer.finetune` and TRL's `SFTTrainer`, the same model, examples, order and machine."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks.serve.findings import Claim, Part, header, write
from benchmarks.train.gating import by_gates
from benchmarks.train.learning import School, ablation, by_records, by_teacher, by_time
from benchmarks.train.loops import compare_loops
from benchmarks.train.sides import Run, run_ours, run_trl
from benchmarks.train.task import Task, make_model, make_records
from trainer.finetune.config import FinetuneConfig

RESULT = Path(__file__).parent / "results" / "training.json"
OURS, TRL = "ours", "trl"
_SAME_CURVE = 1e-3
_ALSO = ("accelerate", "datasets", "peft", "trl")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Name(StrEnum):
    """The parts.

    Beside TRL: LoRA with the vision tower frozen, as World2VLM was trained, and all weights, the tower's too. On a
    store's dataset: the trained student against one with a world model in the loop; half of the tasks against all;
    skill by records, by time, and by teachers; what a teacher's wrong views cost, and what the gates save of it.
    """

    LORA = "lora"
    FULL = "full"
    LOOP = "loop"
    ABLATION = "ablation"
    RECORDS = "records"
    TIME = "time"
    TEACHERS = "teachers"
    GATES = "gates"


_BESIDE_TRL = (Name.LORA, Name.FULL)
_LEARNING: Mapping[Name, Callable[[School], Part]] = {
    Name.ABLATION: ablation,
    Name.RECORDS: by_records,
    Name.TIME: by_time,
    Name.TEACHERS: by_teacher,
    Name.GATES: by_gates,
}


@app.command()
def main(
    only: Annotated[list[Name] | None, typer.Option(help="Run these parts only; may be given several times.")] = None,
    records: Annotated[int, typer.Option(min=64, help="Examples of a run, each seen once.")] = 640,
    batch: Annotated[int, typer.Option(min=1, help="Examples of an optimiser step.")] = 8,
    row: Annotated[int, typer.Option(min=1, help="Examples of one of our rows.")] = 8,
    rooms: Annotated[int, typer.Option(min=1, help="Rooms that they are about.")] = 12,
    repetitions: Annotated[int, typer.Option(min=1, help="Runs of each side.")] = 3,
    width: Annotated[int, typer.Option(min=128, help="Width of the language model.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Layers of each of its towers.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="torch threads.")] = 1,
    store: Annotated[str, typer.Option(help="A store with a dataset; for `loop` with a trained student, too.")] = "",
    student: Annotated[int, typer.Option(min=0, help="Version of that student; 0 = the newest.")] = 0,
    questions: Annotated[int, typer.Option(min=2, help="Held-out questions a task that `loop` asks.")] = 50,
    calibration: Annotated[int, typer.Option(min=2, help="Calibration questions a task that it is set by.")] = 60,
    work: Annotated[
        Path, typer.Option(help="Keeps what learning trains; done again is only what is not there.")
    ] = Path("runs/learning"),
    result: Annotated[Path, typer.Option(help="Where the result is written.")] = RESULT,
) -> None:
    """Train beside TRL; on a store's dataset, see what teaches what, and what a world model in the loop adds."""
    torch.set_num_threads(threads)
    options = {
        "records": records, "batch": batch, "row": row, "rooms": rooms, "repetitions": repetitions, "threads": threads,
    }  # fmt: skip
    head = header("training", _ALSO)
    if find_spec("trl") is None:
        print("TRL is left out: it is not installed (pip install trl)")
    parts: dict[str, Part] = {}
    chosen = [name for name in only or list(Name) if name in _BESIDE_TRL or store]
    if len(chosen) < len(only or list(Name)):
        print("what needs --store is left out")

    def note(name: Name, part: Part) -> None:
        parts[name] = part
        part.show(name)
        write(result, head, options, parts)

    if Name.LOOP in chosen:
        note(Name.LOOP, compare_loops(store, student, questions, calibration))
    if set(chosen) & set(_LEARNING):
        school = School(store, "", work, threads)
        for name in _LEARNING:
            if name in chosen:
                note(name, _LEARNING[name](school))
    if not set(chosen) & set(_BESIDE_TRL):
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = make_model(root / "model", width, layers)
        task = Task(root / "images", make_records(root / "images", records, rooms), batch, _config(root / "model"))
        for name in _BESIDE_TRL:
            if name in chosen:
                note(name, _compare(_as_part(task, name), row, repetitions, size))


def _config(model: Path) -> FinetuneConfig:
    """Settings that both sides can have; snapshots, warm-up and decay of the rate have no part in it."""
    return FinetuneConfig(
        str(model), rank=16, alpha=32, learning_rate=1e-3, schedule="constant", warmup=0.0, dtype="float32",
        gradient_checkpointing=False, accumulation=1, snapshot_every=1_000_000,
    )  # fmt: skip


def _as_part(task: Task, name: Name) -> Task:
    changes: Mapping[str, Any] = {"method": "full", "freeze_vision": False} if name is Name.FULL else {}
    return replace(task, config=replace(task.config, **changes))


def _compare(task: Task, row: int, repetitions: int, size: int) -> Part:
    sides: dict[str, Callable[[], Run]] = {OURS: partial(run_ours, task, row)}
    if find_spec("trl") is not None:
        sides[TRL] = partial(run_trl, task)
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, run in sides.items():
            runs[name].append(run())
    figures: dict[str, Any] = {"parameters": size, "steps": task.steps}
    figures |= {name: _describe(found, task) for name, found in runs.items()}
    if TRL not in runs:
        return Part(figures)
    steady, whole = (figures[OURS][key] / figures[TRL][key] for key in ("samples_per_s", "samples_per_s_whole_run"))
    apart = _apart(runs[OURS][0], runs[TRL][0])
    figures |= {"ratio": steady, "ratio_whole_run": whole, "loss_curves_apart": apart}
    return Part(
        figures,
        [
            Claim("samples/s, times TRL's", steady, 2.0, is_least=True),
            Claim("loss curves, largest difference relative to TRL's", apart, _SAME_CURVE),
        ],
    )


def _describe(runs: list[Run], task: Task) -> dict[str, Any]:
    """Medians over runs; steps once caches are warm, and whole runs with all that comes before the first step."""
    return {
        "samples_per_s": task.batch / median(run.step_s for run in runs),
        "samples_per_s_whole_run": task.batch * task.steps / median(run.whole_s for run in runs),
        "seconds_per_step": [run.step_s for run in runs],
        "seconds_whole_run": [run.whole_s for run in runs],
        "loss": runs[0].losses,
    }


def _apart(ours: Run, theirs: Run) -> float:
    return max(abs(mine - other) / other for mine, other in zip(ours.losses, theirs.losses, strict=True))


if __name__ == "__main__":
    app()
