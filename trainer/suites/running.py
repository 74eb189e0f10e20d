"""Evaluate a checkpoint on a published suite."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.tables import Row
from trainer.suites import report
from trainer.suites.answerers import Answerer, Blind
from trainer.suites.asking import Answered, Order, ask, sample
from trainer.suites.checkpoint import CheckpointAnswerer
from trainer.suites.hub import locate
from trainer.suites.items import SuiteItem
from trainer.suites.suite import Suite
from trainer.suites.summary import compare, summarise
from world2vlm.adapters import whole
from world2vlm.checkpoints import Registry
from world2vlm.telemetry import progress


@dataclass(frozen=True)
class SuiteRun:
    """What is asked, and how.

    Attributes:
        suite: the suite.
        data: where its files are, see `hub.locate`: a folder, a file, or a data set on the hub.
        order: in which order choices are shown.
        limit: ask a sample of so many questions; 0 = all.
        seed: of the sample, the shuffles and the intervals.
        revision: of the data set on the hub.
    """

    suite: Suite
    data: str = ""
    order: Order = Order.SHUFFLED
    limit: int = 0
    seed: int = 0
    revision: str = ""


def evaluate_suite(
    registry: Registry, version: int, run: SuiteRun, against: int | None = None
) -> tuple[list[list[Row]], dict[str, Any]]:
    """Ask a checkpoint all questions, and once more with grey pictures.

    Args:
        registry: where the checkpoints are.
        version: the checkpoint.
        run: what is asked, and how.
        against: another checkpoint, which is asked the same, for a paired comparison.

    Returns:
        Tables, each with its header first, and the figures: `suite`, `repository` and `revision` (empty for a
        folder), `version`, `order`, `seed`, `pictures` (how many were shown), `rows` (see `summarise`), `answers`, and
        with `against` its `version` and the `changes` from it.

    Raises:
        InvalidInputError: the files are not there, with how to get them, or are broken.
        NotFoundError: no such checkpoint, or no such data set on the hub.
        UnavailableError: the files cannot be fetched from the hub.
    """
    for asked in (version, against):
        if asked is not None:
            registry.get(asked)  # before gigabytes are fetched for a checkpoint that is not there
    located = locate(run.suite, run.data, run.revision)
    items = sample(run.suite.read(located.path), run.limit, run.seed)
    with whole(registry, version) as folder:
        student = CheckpointAnswerer(folder)
    answered = _ask(student, items, run, f"version {version}, {run.suite.name}")
    blind = _ask(Blind(student), items, run, f"version {version}, {run.suite.name}, grey pictures")
    rows = summarise(answered, blind, run.suite.tasks, run.seed)
    tables = [report.table(rows, run.order)]
    result: dict[str, Any] = {
        "suite": run.suite.name,
        "repository": located.repository,
        "revision": located.revision,
        "version": version,
        "order": run.order.value,
        "seed": run.seed,
        "pictures": report.pictures_used(answered, student.max_images),
        "rows": rows,
    }
    if against is not None:
        with whole(registry, against) as folder:
            other = CheckpointAnswerer(folder)
        before = _ask(other, items, run, f"version {against}, {run.suite.name}")
        changes = compare(before, answered, run.suite.tasks, run.seed)
        tables.append(report.change_table(changes))
        result["against"] = {
            "version": against,
            "changes": {row: asdict(change) for row, change in changes.items()},
        }
    return tables, {**result, "answers": report.answers(answered)}


def _ask(answerer: Answerer, items: Sequence[SuiteItem], run: SuiteRun, label: str) -> list[Answered]:
    with progress(label, len(items)) as advance:
        return ask(answerer, items, run.order, run.seed, advance)
