"""What lmms-eval calls for the task `world2vlm_heldout`: a row in, pictures, a question and a strict score out.

A row is one of `trainer.suites.exporting`: `id`, `task`, `scene`, `question`, `answer`, `images` (encoded pictures).
"""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from PIL import Image

from world2vlm.scoring import score

Row = Mapping[str, Any]


def doc_to_visual(doc: Row) -> list[Image.Image]:
    """The pictures, the earlier view first."""
    return [Image.open(io.BytesIO(data)).convert("RGB") for data in doc["images"]]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The question as World2VLM asks it: it says itself how to answer."""
    return str(doc["question"])


def process_results(doc: Row, results: Sequence[str]) -> dict[str, Any]:
    """Score one response as `world2vlm evaluate` does (`world2vlm.scoring`)."""
    parts = score(doc["task"], doc["answer"], results[0])
    return {
        "world2vlm_macro": (doc["task"], parts["overall"]),
        "world2vlm_score": parts["overall"],
        "world2vlm_unparsed": 1 - parts["parsed"],
    }


def mean_over_tasks(results: Sequence[tuple[str, float]]) -> float:
    """The mean over tasks of each task's mean, so that no task counts more for having more questions."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for task, value in results:
        by_task[task].append(value)
    return fmean(fmean(values) for values in by_task.values())
