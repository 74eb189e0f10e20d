"""Hold a new checkpoint against its parent on the held-out questions, and decide whether it may serve."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image

from trainer.calibration import measure_calibration
from trainer.evaluation import NEAREST, Scored, baseline_scores, evaluate, gate, summarise
from trainer.perception import QuestionAnswer, what, where
from trainer.prompts import read_prompt
from world2vlm.boxes import iou, parse_box
from world2vlm.bundles import ObjectView, read_bundle
from world2vlm.datasets import Dataset
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.vlm import Prompt
from world2vlm.vlm.answering import Student
from world2vlm.vlm.loading import load_student

Progress = Callable[[int, int], None]
Ask = Callable[[Sequence[ObjectView], str, random.Random], QuestionAnswer | None]
PROBE_QUESTIONS = 200
SAMPLES_PER_TASK = 3
_BATCH = 32
_GREY = Image.new("RGB", (128, 128), (110, 110, 110))


def compare_checkpoints(
    parent: Path,
    child: Path,
    dataset: Dataset,
    *,
    bundles: Path,
    seed: int,
    threads: int,
    on_progress: Progress,
    min_scenes: int = 1,
    silent: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Ask both checkpoints all held-out questions.

    `min_scenes` and `silent` are the gate's (`trainer.evaluation.gate`).

    Returns:
        `before`, `after` (summaries by task), `baselines`, `references` (see `_references`), `probes` (before and
        after, see `probe_scores`), `calibration` of the new checkpoint (`trainer.calibration`), `decision` (promote,
        reasons, difference, scenes) and `samples` (questions with both answers).
    """
    torch.set_num_threads(threads)
    train, test = dataset.splits["train"], dataset.splits["test"]
    baselines = baseline_scores(train, test, seed)
    total = 2 * len(test)
    before, probes_before = _assess(load_student(parent), test, bundles, lambda done: on_progress(done, total))
    student = load_student(child)
    after, probes_after = _assess(student, test, bundles, lambda done: on_progress(len(test) + done, total))
    decision = gate(
        before, after, baselines, probes_before, probes_after, min_scenes=min_scenes, silent=silent, seed=seed
    )
    return {
        "before": summarise(before, baselines, seed),
        "after": summarise(after, baselines, seed),
        "baselines": baselines,
        "references": _references(student, train, test, seed),
        "probes": {"before": probes_before, "after": probes_after},
        "calibration": measure_calibration(student, test, bundles),
        "decision": asdict(decision),
        "samples": _samples(before, after, random.Random(seed)),
    }


def score_checkpoint(folder: Path, records: Sequence[TaskRecord], bundles: Path, on_progress: Progress) -> list[Scored]:
    """Ask one checkpoint some questions and score the answers; image paths are relative to `bundles`."""
    return _ask(load_student(folder), records, bundles, on_progress)


def probe_scores(student: Student, records: Sequence[TaskRecord], bundles: Path) -> dict[str, float]:
    """What a round must not make a student forget, by probe: mean scores on single frames of `records`.

    `grounding`: the IoU of the box of a named object ("Where is the red chair?"). `naming`: whether it names what is in
    a box. The questions are the base student's, and depend on the records alone. A probe is left out where no frame
    shows an object to ask about.
    """
    paths = sorted({path for record in records for path in record.images})
    asked = {name: _probes(paths, bundles, ask) for name, (ask, _) in _PROBES.items()}
    return {name: _probe(student, bundles, found, _PROBES[name][1]) for name, found in asked.items() if found}


def _probes(paths: Sequence[str], bundles: Path, ask: Ask) -> list[tuple[str, str, str]]:
    """Frames with a question and its answer each, in a fixed random order."""
    rng = random.Random(0)
    asked = []
    for path in paths:
        question = ask(_objects(bundles, path), "", rng)
        if question is not None:
            asked.append((path, *question))
    rng.shuffle(asked)
    return asked[:PROBE_QUESTIONS]


def _probe(
    student: Student, bundles: Path, asked: Sequence[tuple[str, str, str]], score: Callable[[str, str], float]
) -> float:
    scores: list[float] = []
    for start in range(0, len(asked), _BATCH):
        part = asked[start : start + _BATCH]
        replies = student.answer([read_prompt(bundles, (path,), question) for path, question, _ in part])
        scores += [score(reply.text, truth) for reply, (_, _, truth) in zip(replies, part, strict=True)]
    return sum(scores) / len(scores)


def _references(
    student: Student, train: Sequence[TaskRecord], test: Sequence[TaskRecord], seed: int
) -> dict[str, dict[str, float]]:
    """What is reached without looking, by task: how much of a score needs the images at all.

    `blind`: the new student, shown grey images. `nearest`: neighbours among the training questions that give boxes
    (World2VLM's templates for D1-D4 do), so geometry alone answers much of them.
    """

    def answer(asked: Sequence[TaskRecord]) -> list[str]:
        prompts = [Prompt(tuple(_GREY for _ in r.images), r.question, r.task_type) for r in asked]
        return [reply.text for reply in student.answer(prompts)]

    blind: dict[str, list[float]] = {}
    for scored in evaluate(answer, test, _BATCH, lambda _done, _total: None):
        blind.setdefault(scored.record.task_type, []).append(scored.overall)
    nearest = baseline_scores(train, test, seed, (NEAREST,))
    return {task: {"blind": sum(scores) / len(scores), **nearest[task]} for task, scores in blind.items()}


def _assess(
    student: Student, records: Sequence[TaskRecord], bundles: Path, on_done: Callable[[int], None]
) -> tuple[list[Scored], dict[str, float]]:
    scored = _ask(student, records, bundles, lambda done, _total: on_done(done))
    return scored, probe_scores(student, records, bundles)


def _ask(student: Student, records: Sequence[TaskRecord], bundles: Path, on_progress: Progress) -> list[Scored]:
    def answer(asked: Sequence[TaskRecord]) -> list[str]:
        prompts = [read_prompt(bundles, record.images, record.question, record.task_type) for record in asked]
        return [reply.text for reply in student.answer(prompts)]

    return evaluate(answer, records, _BATCH, on_progress)


def _objects(bundles: Path, path: str) -> Sequence[ObjectView]:
    folder = (bundles / path).parents[1]
    return next(frame.objects for frame in read_bundle(folder).frames if folder / frame.path == bundles / path)


def _overlap(said: str, truth: str) -> float:
    try:
        return iou(parse_box(said), parse_box(truth))
    except InvalidInputError:
        return 0.0


def _samples(before: Sequence[Scored], after: Sequence[Scored], rng: random.Random) -> list[dict[str, Any]]:
    by_task: dict[str, list[dict[str, Any]]] = {}
    for old, new in rng.sample(list(zip(before, after, strict=True)), len(before)):
        shown = by_task.setdefault(new.record.task_type, [])
        if len(shown) < SAMPLES_PER_TASK:
            shown.append(
                {
                    "task": new.record.task_type,
                    "question": new.record.question,
                    "images": list(new.record.images),
                    "truth": new.record.assistant,
                    "before": {"answer": old.response, "score": old.overall},
                    "after": {"answer": new.response, "score": new.overall},
                }
            )
    return [sample for task in sorted(by_task) for sample in by_task[task]]


_PROBES: Mapping[str, tuple[Ask, Callable[[str, str], float]]] = {
    "grounding": (where, _overlap),
    "naming": (what, lambda said, truth: float(said == truth)),
}
