"""Which way to answer each forward task, chosen on calibration questions: never on those that are reported."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.looped.cases import Case
from trainer.looped.looping import Looper
from trainer.looped.ways import WAYS, Way
from world2vlm.scoring import score
from world2vlm.tasks import AnswerKind, get_task, parse_answer

Labelled = tuple[Case, str]
"""A case and its true answer."""


def fit(looper: Looper, cases: Sequence[Labelled]) -> dict[str, Way]:
    """The way that scores best for each forward task among the cases; the first of equals.

    Args:
        looper: with the student and the world that are to be fitted.
        cases: calibration questions; those of inverse tasks, and those whose view a gate rejects, say nothing.
    """
    ways: dict[str, Way] = {}
    for task, known in WAYS.items():
        pairs = [(looper.imagine(case), answer) for case, answer in cases if case.question.task == task]
        views = [(seen, answer) for seen, answer in pairs if seen is not None]
        if not views:
            continue
        found = {name: [way(seen) for seen, _ in views] for name, way in known.items()}
        answers = [answer for _, answer in views]
        rated = [_rate(task, name, values, answers) for name, values in found.items()]
        ways[task] = max(rated, key=lambda pair: pair[0])[1]
    return ways


def _rate(task: str, name: str, found: Sequence[float | str], answers: Sequence[str]) -> tuple[float, Way]:
    if get_task(task).kind is not AnswerKind.BINARY:
        return float(np.mean([score(task, a, str(f))["overall"] for a, f in zip(answers, found, strict=True)])), Way(
            name
        )
    evidence = np.array(found, dtype=np.float64)
    truth = np.array([parse_answer(task, answer) for answer in answers], dtype=bool)
    share, threshold = best_threshold(evidence, truth)
    return share, Way(name, threshold)


def best_threshold(evidence: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The threshold at or above which evidence means yes: the share that it gets right, and itself.

    Args:
        evidence: float64 (N,), N at least 1.
        truth: bool (N,).

    Returns:
        The largest share, and the middle of the widest gap between two neighbours that reaches it.
    """
    levels = np.unique(evidence)
    cuts = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    widths = np.concatenate([[0.0], np.diff(levels)])
    shares = np.array([np.mean((evidence >= cut) == truth) for cut in cuts])
    best = max(range(len(cuts)), key=lambda index: (shares[index], widths[index]))
    return float(shares[best]), float(cuts[best])
