"""The student with a world model in the loop at test time, in the manner of MindJourney (arXiv 2507.12508).

A comparator for the student that answers alone, and never part of serving: docs/adr/0012-world-model-in-the-loop.md.
"""

from trainer.looped.cases import Case, Start, read_case
from trainer.looped.fitting import fit
from trainer.looped.looping import Looper
from trainer.looped.searching import Breadth, search
from trainer.looped.ways import Way
from trainer.looped.worlds import PhotoWorld, SceneWorld, World

__all__ = [
    "Breadth",
    "Case",
    "Looper",
    "PhotoWorld",
    "SceneWorld",
    "Start",
    "Way",
    "World",
    "fit",
    "read_case",
    "search",
]
