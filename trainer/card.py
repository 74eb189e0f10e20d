"""A checkpoint's model card: what it is, how it was made, and what it was not shown; Hugging Face's README form."""

from collections.abc import Mapping
from pathlib import Path

from trainer.recipes import Recipe
from world2vlm import __version__
from world2vlm.datasets import Dataset
from world2vlm.files import write_atomically

CARD_FILE = "README.md"

_TEXT = """---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [world2vlm, spatial-reasoning]
---

# A World2VLM student: {name}, from version {parent}

{description}

It answers World2VLM's eight tasks about one or two views and a camera that moves between them (arXiv 2604.26934), with
no world model at inference. What it knows of other questions is what its parent knew.

| | |
|---|---|
| recipe | `{name}`, digest `{digest}`; whole in `recipe.json` |
| parent | version {parent} |
| dataset | `{dataset}`: {records} records, imagined by the world `{world}` |
| tasks | {tasks} |
| made with | world2vlm {version} |

At the end of training (running means, no scores: those are in the round's evaluation, measured on held-out scenes):

| figure | value |
|---|---|
{figures}
"""


def write_model_card(folder: Path, recipe: Recipe, parent: int, dataset: Dataset, metrics: Mapping[str, float]) -> None:
    """Write the card of the checkpoint in `folder`, before it is published."""
    train = recipe.select(dataset.splits["train"])
    tasks = sorted({record.task_type for record in train})
    text = _TEXT.format(
        name=recipe.name,
        description=recipe.description,
        parent=parent,
        digest=recipe.digest,
        dataset=dataset.digest,
        records=len(train),
        world=dataset.info.get("world", "unknown"),
        tasks=", ".join(tasks),
        version=__version__,
        figures="\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items())),
    )
    write_atomically(folder / CARD_FILE, text.encode())
