"""Labelling: bundles in, task records out. Pure functions; the same bundle and seed always give the same records."""

from trainer.labelling.balancing import balance
from trainer.labelling.questions import label
from trainer.labelling.selecting import select_test
from trainer.labelling.transition import MAX_BOX_SHARE, MIN_AREA, Transition, transitions

__all__ = [
    "MAX_BOX_SHARE",
    "MIN_AREA",
    "Transition",
    "balance",
    "label",
    "select_test",
    "transitions",
]
