"""Evaluate one checkpoint on a benchmark, outside of any round."""

from collections.abc import Mapping
from typing import Any

from trainer.assessing import score_checkpoint
from trainer.evaluation import baseline_scores, summarise
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.datasets import Dataset, list_datasets, load_dataset
from world2vlm.errors import InvalidInputError, NotFoundError
from world2vlm.store import Store
from world2vlm.telemetry import progress

Row = tuple[str, ...]
BENCHMARKS = ("held-out",)
_HEADER = ("task", "n", "score", "95% interval", "skill", "best baseline", "unparsed")


def evaluate_checkpoint(
    store: Store, registry: Registry, version: int, benchmark: str, digest: str
) -> tuple[list[Row], dict[str, Any]]:
    """Ask a checkpoint the held-out questions of a dataset.

    Args:
        store: where datasets and bundles are.
        registry: where the checkpoint is.
        version: the checkpoint.
        benchmark: one of `BENCHMARKS`.
        digest: the dataset; empty for the one the checkpoint was trained on or, where there was none, the only one.

    Returns:
        Rows for a table, the header first, and the figures: `summary`, `baselines`, `dataset`.

    Raises:
        InvalidInputError: no such benchmark.
        NotFoundError: no such checkpoint or dataset.
    """
    if benchmark not in BENCHMARKS:
        raise InvalidInputError(f"unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)}")
    dataset = _dataset(store, digest or registry.get(version).dataset_digest)
    train, test = dataset.splits["train"], dataset.splits["test"]
    baselines = baseline_scores(train, test, 0)
    with progress(f"version {version}, {benchmark}", len(test)) as advance:
        shown = 0

        def on_progress(done: int, _total: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        with whole(registry, version) as folder:
            scored = score_checkpoint(folder, test, store.local("bundles"), on_progress)
    summary = summarise(scored, baselines, 0)
    rows = [_HEADER, *(_row(task, figures, baselines.get(task, {})) for task, figures in summary.items())]
    return rows, {"version": version, "dataset": dataset.digest, "baselines": baselines, "summary": summary}


def _dataset(store: Store, digest: str) -> Dataset:
    known = list_datasets(store)
    if digest:
        return load_dataset(store, digest)
    if len(known) != 1:
        raise NotFoundError(f"name a dataset, the store has {len(known)}: {', '.join(known)}")
    return load_dataset(store, known[0])


def _row(task: str, figures: Mapping[str, float], baselines: Mapping[str, float]) -> Row:
    best = max(baselines.items(), key=lambda item: item[1], default=("", 0.0))
    return (
        task,
        f"{figures['n']:.0f}",
        f"{figures['score']:.3f}",
        f"{figures['low']:.3f} to {figures['high']:.3f}",
        f"{figures['skill']:.2f}",
        f"{best[1]:.3f} {best[0]}".rstrip() if best[0] else "",
        f"{figures['unparsed']:.3f}",
    )
