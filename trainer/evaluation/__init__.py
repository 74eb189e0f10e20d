"""Evaluation: scores with intervals, the cheating baselines they are held against, and the gate before promotion."""

from trainer.evaluation.baselines import BASELINES, NEAREST, baseline_scores
from trainer.evaluation.gating import Decision, gate
from trainer.evaluation.scored import Answerer, Scored, evaluate
from trainer.evaluation.statistics import MACRO, Difference, Interval, paired_bootstrap, summarise
from trainer.evaluation.tables import markdown, table

__all__ = [
    "BASELINES",
    "MACRO",
    "NEAREST",
    "Answerer",
    "Decision",
    "Difference",
    "Interval",
    "Scored",
    "baseline_scores",
    "evaluate",
    "gate",
    "markdown",
    "paired_bootstrap",
    "summarise",
    "table",
]
