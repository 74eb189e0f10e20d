"""The student alone against the same student with a world model in the loop, question by question."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.serve.findings import Claim, Part
from benchmarks.serve.usage import cpu_seconds
from benchmarks.teach.service import serve
from teacher_service import scenes
from trainer.evaluation import MACRO, Scored, baseline_scores, markdown, paired_bootstrap, summarise
from trainer.labelling import select_test
from trainer.looped import Case, Looper, PhotoWorld, SceneWorld, Start, World, fit, read_case
from trainer.looped.reading import Reader
from world2vlm.actions import parse_actions
from world2vlm.base_student import BASE_STUDENT
from world2vlm.checkpoints import Registry
from world2vlm.clients.teacher import TeacherClient
from world2vlm.datasets import Dataset, pick_dataset
from world2vlm.records import TaskRecord
from world2vlm.scoring import score
from world2vlm.settings import StudentSettings, TeacherSettings
from world2vlm.store import Store
from world2vlm.vlm import StudentModel
from world2vlm.vlm.onnx_student import OnnxStudent

ALONE = "student alone"
SHARE_OF_TIME = 1 / 50
_GLANCE = parse_actions("turn left 10 degrees")
_SEED = 0
# A search tries what no training set would want; and the cheapest way to fill holes, as speed is compared, too.
_TEACHER = {
    "WORLD2VLM_MIN_CLEARANCE_M": "0",
    "WORLD2VLM_MIN_OBJECT_AREA": "0",
    "WORLD2VLM_MIN_OBSERVED_SHARE": "0",
    "WORLD2VLM_WITH_GATES": "false",
    "WORLD2VLM_WORLD_OPTIONS": '{"geometric": {"inpaint_model": "none"}}',
}


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, loaded twice: on onnxruntime to answer, as the service does on a CPU, on torch to look."""

    answering: OnnxStudent
    looking: StudentModel

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        """Load a checkpoint folder."""
        return cls(OnnxStudent.load(folder, StudentSettings.load().onnx_cache), StudentModel.load(folder))


@dataclass
class Side:
    """One row: who answers, and what was measured of it, a question at a time.

    Attributes:
        answer: a case's answer as text.
        counts: calls of the world model, views, and questions to the student so far.
        ways: how the forward tasks are answered, as chosen on the calibration questions.
        student: whose weights answer.
    """

    answer: Callable[[Case], str]
    counts: Callable[[], tuple[int, int, int]]
    student: str
    ways: Mapping[str, Any] = field(default_factory=dict)
    scored: list[Scored] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    own_cpu: float = 0.0
    teacher_cpu: float = 0.0

    def ask(self, record: TaskRecord, case: Case) -> None:
        """Answer one question and note what it took."""
        own, teacher, begin = process_time(), _children_cpu(), perf_counter()
        said = self.answer(case)
        self.seconds.append(perf_counter() - begin)
        self.own_cpu += process_time() - own
        self.teacher_cpu += _children_cpu() - teacher
        self.scored.append(Scored(record, said, score(record.task_type, record.assistant, said)))


def compare_loops(root: str, version: int, questions: int, calibration: int) -> Part:
    """Ask every side the same held-out questions, in turn.

    Args:
        root: a store with a dataset of procedural rooms and a trained student.
        version: the trained student's; 0 = the newest.
        questions: held-out questions a task.
        calibration: calibration questions a task, on which each loop chooses how it answers.
    """
    store = Store(root)
    dataset, bundles = pick_dataset(store, ""), store.local("bundles")
    registry = Registry(store, "student")
    version = version or max(registry.versions())
    students = {
        "base": Checkpoint.load(BASE_STUDENT),
        "trained": Checkpoint.load(registry.fetch(version)),
    }
    test = sorted(select_test(dataset.splits["test"], questions, _SEED), key=lambda record: str(record.meta["scene"]))
    fitting = select_test(dataset.splits["calibration"], calibration, _SEED)
    labelled = [(read_case(bundles, record), record.assistant) for record in fitting]
    with serve(TeacherSettings.load(port=0, metrics_port=-1, scene_cache=64), _TEACHER) as client:
        worlds = _worlds(client)
        sides = {ALONE: _alone("trained", students), "base student alone": _alone("base", students)}
        for name, world in worlds.items():
            for student in students:
                sides[f"{student} student, {name}"] = _looped(student, students, world, labelled)
        for number, record in enumerate(test):
            case = read_case(bundles, record)
            for world in worlds.values():
                # Rooms, depths and surfaces are made before the clock runs: the loop is compared at its fastest.
                world.imagine(case.start, _GLANCE)
            for side in sides.values():
                side.ask(record, case)
            if number % 50 == 0:
                print(f"{number} of {len(test)} questions", flush=True)
    about = {
        "dataset": dataset.digest,
        "student": version,
        "questions": len(test),
        "calibration_questions": len(fitting),
    }
    return _report(sides, dataset, test, about)


def _worlds(client: TeacherClient) -> dict[str, World]:
    return {
        "renderer (oracle: the room itself)": SceneWorld(client),
        "geometric (oracle: true depth)": PhotoWorld(client, TrueDepth()),
        "geometric (estimated depth)": PhotoWorld(client),
    }


def _children_cpu() -> float:
    """Processor time that the teacher has taken so far: it is this process's only child."""
    return sum(cpu_seconds(child.pid) for child in psutil.Process().children())


class TrueDepth:
    """The renderer's own depth of a first image; the last one is kept, so that looking it up costs nothing."""

    def __init__(self) -> None:
        self._known: tuple[bytes, NDArray[np.float32]] = (b"", np.zeros((0, 0), np.float32))

    def __call__(self, start: Start) -> NDArray[np.float32]:
        if self._known[0] != start.png:
            room = scenes.build_room(start.scene)
            pose = scenes.anchor_pose(room, start.anchor) @ start.c2w
            view = scenes.SceneRenderer(room).render(pose, start.intrinsics, *start.size)
            self._known = start.png, view.depth
        return self._known[1]


def _alone(name: str, students: Mapping[str, Checkpoint]) -> Side:
    reader = Reader(students[name].answering)
    return Side(lambda case: reader.direct(case.question, case.images), lambda: (0, 0, reader.questions), name)


def _looped(name: str, students: Mapping[str, Checkpoint], world: World, labelled: Sequence[tuple[Case, str]]) -> Side:
    student = students[name]
    ways = fit(Looper(student.looking, student.answering, world), labelled)
    print(f"{name} student: {', '.join(f'{task} {way.name} from {way.threshold:.3g}' for task, way in ways.items())}")
    looper = Looper(student.looking, student.answering, world, ways)
    counted = looper.world
    return Side(
        looper.answer,
        lambda: (counted.calls, counted.views, looper.reader.questions),
        name,
        {task: {"way": way.name, "threshold": way.threshold} for task, way in ways.items()},
    )


def _report(sides: Mapping[str, Side], dataset: Dataset, test: Sequence[TaskRecord], about: Mapping[str, Any]) -> Part:
    baselines = baseline_scores(dataset.splits["train"], test, _SEED)
    alone = sides[ALONE]
    rows: dict[str, Any] = {}
    claims: list[Claim] = []
    for name, side in sides.items():
        rows[name] = {**_figures(side), "scores": summarise(side.scored, baselines, _SEED)}
        if side is alone:
            continue
        difference = paired_bootstrap(alone.scored, side.scored, baselines, _SEED)
        share = mean(alone.seconds) / mean(side.seconds)
        rows[name] |= {"against_student_alone": asdict(difference), "student_alone_takes_share_of_time": share}
        if side.counts()[0]:
            claims += [
                Claim(f"macro skill that {name} gains over the {ALONE}", difference.macro.value, 0.0),
                Claim(f"time of the {ALONE} over that of {name}", share, SHARE_OF_TIME),
            ]
    print(markdown(_table(rows)))
    gpu = "no GPU: 0 GPU-seconds" if not torch.cuda.is_available() else "a GPU is there, and nothing here uses it"
    return Part({**about, "gpu": gpu, "rows": rows}, claims)


def _figures(side: Side) -> dict[str, Any]:
    asked = len(side.seconds)
    calls, views, questions = side.counts()
    return {
        "seconds": {"median": median(side.seconds), "mean": mean(side.seconds)},
        "seconds_by_task": {
            task: mean(s for s, each in zip(side.seconds, side.scored, strict=True) if each.record.task_type == task)
            for task in sorted({each.record.task_type for each in side.scored})
        },
        "cpu_seconds": {"student": side.own_cpu / asked, "teacher": side.teacher_cpu / asked},
        "gpu_seconds": 0.0,
        "world_model_calls": calls / asked,
        "views": views / asked,
        "student_questions": questions / asked,
        "ways": side.ways,
    }


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row a side: macro skill and scores by task, then what a question costs."""
    tasks = [task for task in rows[ALONE]["scores"] if task != MACRO]
    header = (
        "side",
        "macro skill",
        "difference",
        *tasks,
        "s median",
        "s mean",
        "CPU-s student",
        "CPU-s teacher",
        "calls",
    )
    lines: list[tuple[str, ...]] = [header]
    for name, row in rows.items():
        macro, seconds, cpu = row["scores"][MACRO], row["seconds"], row["cpu_seconds"]
        change = row["against_student_alone"]["macro"] if "against_student_alone" in row else None
        lines.append(
            (
                name,
                f"{macro['skill']:.3f} ({macro['skill_low']:.3f} to {macro['skill_high']:.3f})",
                f"{change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})" if change else "",
                *(f"{row['scores'][task]['score']:.3f}" for task in tasks),
                *(f"{value:.4f}" for value in (*seconds.values(), *cpu.values())),
                f"{row['world_model_calls']:.1f}",
            )
        )
    return lines
