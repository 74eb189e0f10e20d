"""Evaluate one checkpoint on a benchmark, outside of any round."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.assessing import score_checkpoint
from trainer.evaluation import baseline_scores, summarise
from trainer.licensing import pick_permitted
from trainer.suites import SUITES
from trainer.suites.exporting import export_records
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.datasets import pick_dataset
from world2vlm.errors import InvalidInputError
from world2vlm.licences import STRICT, Policy
from world2vlm.store import Store
from world2vlm.telemetry import progress

Row = tuple[str, ...]
HELD_OUT = "held-out"
BENCHMARKS = (HELD_OUT, *SUITES)
_HEADER = ("task", "n", "score", "95% interval", "skill", "best baseline", "unparsed")


def check_benchmark(benchmark: str) -> None:
    """Refuse what is no benchmark.

    Raises:
        InvalidInputError: it is none of `BENCHMARKS`.
    """
    if benchmark not in BENCHMARKS:
        raise InvalidInputError(f"unknown benchmark {benchmark!r}; known are {', '.join(BENCHMARKS)}")


def evaluate_checkpoint(
    store: Store, registry: Registry, version: int, digest: str
) -> tuple[list[Row], dict[str, Any]]:
    """Ask a checkpoint the held-out questions of a dataset.

    Args:
        store: where datasets and bundles are.
        registry: where the checkpoint is.
        version: the checkpoint.
        digest: the dataset; empty for the one the checkpoint was trained on or, where there was none, the only one.

    Returns:
        Rows for a table, the header first, and the figures: `summary`, `baselines`, `dataset`, `scenes`.

    Raises:
        NotFoundError: no such checkpoint or dataset.
    """
    dataset = pick_dataset(store, digest or registry.get(version).dataset_digest)
    train, test = dataset.splits["train"], dataset.splits["test"]
    baselines = baseline_scores(train, test, 0)
    with progress(f"version {version}, {HELD_OUT}", len(test)) as advance:
        shown = 0

        def on_progress(done: int, _total: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        with whole(registry, version) as folder:
            scored = score_checkpoint(folder, test, store.local("bundles"), on_progress)
    summary, scenes = summarise(scored, baselines, 0), len({item.scene for item in scored})
    rows = [_HEADER, *(_row(task, figures, baselines.get(task, {}), scenes) for task, figures in summary.items())]
    figures = {"version": version, "dataset": dataset.digest, "scenes": scenes}
    return rows, {**figures, "baselines": baselines, "summary": summary}


def export_held_out(store: Store, digest: str, out: Path, policy: Policy = STRICT) -> int:
    """Write a dataset's held-out questions to a Parquet file, for other harnesses (`trainer.suites.exporting`).

    Args:
        store: where datasets and bundles are.
        digest: the dataset; empty for the only one.
        out: the file.
        policy: whose terms are kept.

    Returns:
        How many questions were written.

    Raises:
        NotFoundError: no such dataset.
        PreconditionError: terms of a world that the dataset comes from are not acknowledged, or not known.
        InvalidInputError: it has no held-out questions, or a picture cannot be read.
    """
    test = pick_permitted(store, digest, policy).splits["test"]
    export_records(test, store.local("bundles"), out)
    return len(test)


def _row(task: str, figures: Mapping[str, float], baselines: Mapping[str, float], scenes: int) -> Row:
    best = max(baselines.items(), key=lambda item: item[1], default=("", 0.0))
    return (
        task,
        f"{figures['n']:.0f}",
        f"{figures['score']:.3f}",
        # Resampling one scene gives that scene again.
        f"{figures['low']:.3f} to {figures['high']:.3f}" if scenes > 1 else "one scene",
        f"{figures['skill']:.2f}",
        f"{best[1]:.3f} {best[0]}".rstrip() if best[0] else "",
        f"{figures['unparsed']:.3f}",
    )
