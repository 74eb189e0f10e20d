"""Cheating baselines: what a student reaches that guesses, repeats itself, reads only the text, or copies a box.

They are fitted on training records and scored on test records by the scorer that scores the student.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np

from trainer.evaluation.agreement import agreement, best_constant
from trainer.evaluation.neighbours import Neighbours
from world2vlm.boxes import Box
from world2vlm.errors import InvalidInputError
from world2vlm.records import TaskRecord
from world2vlm.scoring import score
from world2vlm.tasks import AnswerKind, get_task

BASELINES = ("chance", "constant", "text", "copy")
"""The baselines that skill is measured against.

chance: any answer seen in training, with equal probability.
constant: the one answer that is best on the training records.
text: the best constant for the question's text without its boxes, backing off to the actions it names, then the task.
copy: the first box, unmoved (D1 only).
"""

NEAREST = "nearest"
"""A stronger reader of text, which knows how boxes move (see `neighbours`): only for tasks whose question has a box.

No guess but learned geometry, so skill is not measured against it unless asked for; publish it beside the scores.
"""

# Fewer training records than this say too little about a text.
_MIN_GROUP = 4
_MOST_GUESSES = 100
_BOX = re.compile(r"\[\d+, \d+, \d+, \d+\]")

Answer = Callable[[TaskRecord], str]


def baseline_scores(
    train: Sequence[TaskRecord], test: Sequence[TaskRecord], seed: int, names: Collection[str] = BASELINES
) -> dict[str, dict[str, float]]:
    """Fit baselines on `train` and score them on `test`.

    Args:
        train: what to fit on.
        test: what to score on.
        seed: chooses among answers where there are too many to try all.
        names: which baselines, of `BASELINES` and `NEAREST`.

    Returns:
        Task -> baseline -> mean score, for the tasks of `test`; a baseline that says nothing about a task is left out.

    Raises:
        InvalidInputError: a task of `test` has no training records.
    """
    fitted = _by_task(train)
    return {
        task: _task_scores(fitted.get(task, []), records, names, random.Random(f"{seed}/{task}"))
        for task, records in sorted(_by_task(test).items())
    }


def _by_task(records: Iterable[TaskRecord]) -> dict[str, list[TaskRecord]]:
    groups: dict[str, list[TaskRecord]] = defaultdict(list)
    for record in records:
        groups[record.task_type].append(record)
    return groups


def _task_scores(
    train: Sequence[TaskRecord], test: Sequence[TaskRecord], names: Collection[str], rng: random.Random
) -> dict[str, float]:
    task = test[0].task_type
    if not train:
        raise InvalidInputError(f"no training records to fit the baselines of task {task} on")
    chance = _chance(task, train, test, rng)
    constant = best_constant(task, [record.assistant for record in train], rng)
    texts = _fit_texts(task, train, rng)
    answers: dict[str, Answer] = {
        "constant": lambda _record: constant,
        "text": lambda record: _look_up(texts, record, constant),
    }
    if get_task(task).kind is AnswerKind.BOX:
        answers["copy"] = lambda record: str(Box(*record.meta["box"]))
    if "box" in get_task(task).needs and NEAREST in names:
        neighbours = Neighbours(train)
        answers[NEAREST] = lambda record: neighbours.answer(record, rng) or answers["text"](record)
    scores = {name: _mean_score(answer, test) for name, answer in answers.items() if name in names}
    return {"chance": chance, **scores} if "chance" in names else scores


def _mean_score(answer: Answer, test: Sequence[TaskRecord]) -> float:
    scores = [score(record.task_type, record.assistant, answer(record))["overall"] for record in test]
    return float(np.mean(scores))


def _chance(task: str, train: Sequence[TaskRecord], test: Sequence[TaskRecord], rng: random.Random) -> float:
    seen = sorted({record.assistant for record in train})
    guesses = rng.sample(seen, min(_MOST_GUESSES, len(seen)))
    return float(agreement(task, [record.assistant for record in test], guesses).mean())


def _text_keys(record: TaskRecord) -> tuple[Hashable, ...]:
    """What a text-only reader may go by, the most precise first."""
    return ("question", _BOX.sub("", record.question)), ("claim", record.meta.get("claim"))


def _fit_texts(task: str, train: Sequence[TaskRecord], rng: random.Random) -> dict[Hashable, str]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for record in train:
        for key in _text_keys(record):
            groups[key].append(record.assistant)
    return {key: best_constant(task, answers, rng) for key, answers in groups.items() if len(answers) >= _MIN_GROUP}


def _look_up(texts: Mapping[Hashable, str], record: TaskRecord, default: str) -> str:
    return next((texts[key] for key in _text_keys(record) if key in texts), default)
