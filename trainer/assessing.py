"""Hold a new checkpoint against its parent on the held-out questions, and decide whether it may serve."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from trainer.calibration import measure_calibration
from trainer.evaluation import NEAREST, Scored, baseline_scores, evaluate, gate, summarise
from trainer.perception import where
from trainer.prompts import read_prompt
from world2vlm.boxes import iou, parse_box
from world2vlm.bundles import ObjectView, read_bundle
from world2vlm.datasets import Dataset
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.vlm import Prompt, StudentModel

Progress = Callable[[int, int], None]
GROUNDING_QUESTIONS = 200
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
) -> dict[str, Any]:
    """Ask both checkpoints all held-out questions.

    Returns:
        `before`, `after` (summaries by task), `baselines`, `references` (see `_references`), `grounding` (before and
        after), `calibration` of the new checkpoint (`trainer.calibration`), `decision` (promote, reasons, difference)
        and `samples` (questions with both answers).
    """
    torch.set_num_threads(threads)
    train, test = dataset.splits["train"], dataset.splits["test"]
    baselines = baseline_scores(train, test, seed)
    total = 2 * len(test)
    before, grounding_before = _assess(StudentModel.load(parent), test, bundles, lambda done: on_progress(done, total))
    student = StudentModel.load(child)
    after, grounding_after = _assess(student, test, bundles, lambda done: on_progress(len(test) + done, total))
    decision = gate(before, after, baselines, grounding_before, grounding_after, seed=seed)
    return {
        "before": summarise(before, baselines, seed),
        "after": summarise(after, baselines, seed),
        "baselines": baselines,
        "references": _references(student, train, test, seed),
        "grounding": {"before": grounding_before, "after": grounding_after},
        "calibration": measure_calibration(student, test, bundles),
        "decision": asdict(decision),
        "samples": _samples(before, after, random.Random(seed)),
    }


def score_checkpoint(folder: Path, records: Sequence[TaskRecord], bundles: Path, on_progress: Progress) -> list[Scored]:
    """Ask one checkpoint some questions and score the answers; image paths are relative to `bundles`."""
    return _ask(StudentModel.load(folder), records, bundles, on_progress)


def grounding_score(student: StudentModel, records: Sequence[TaskRecord], bundles: Path) -> float:
    """Mean IoU of the boxes that a student gives for objects named in single frames of `records`.

    The questions are the base student's ("Where is the red chair?"): what a round must not make it forget. They depend
    on the records alone.
    """
    rng = random.Random(0)
    asked = []
    for path in sorted({path for record in records for path in record.images}):
        question = where(_objects(bundles, path), "", rng)
        if question is not None:
            asked.append((path, *question))
    rng.shuffle(asked)
    scores: list[float] = []
    for start in range(0, min(len(asked), GROUNDING_QUESTIONS), _BATCH):
        part = asked[start : min(start + _BATCH, GROUNDING_QUESTIONS)]
        replies = student.answer([read_prompt(bundles, (path,), question) for path, question, _ in part])
        scores += [_overlap(reply.text, truth) for reply, (_, _, truth) in zip(replies, part, strict=True)]
    return sum(scores) / len(scores) if scores else 0.0


def _references(
    student: StudentModel, train: Sequence[TaskRecord], test: Sequence[TaskRecord], seed: int
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
    student: StudentModel, records: Sequence[TaskRecord], bundles: Path, on_done: Callable[[int], None]
) -> tuple[list[Scored], float]:
    scored = _ask(student, records, bundles, lambda done, _total: on_done(done))
    return scored, grounding_score(student, records, bundles)


def _ask(student: StudentModel, records: Sequence[TaskRecord], bundles: Path, on_progress: Progress) -> list[Scored]:
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
